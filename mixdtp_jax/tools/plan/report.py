"""The command: plans the steps of a run, prints and writes what it found."""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import ml_collections

from mixdtp_jax.recipe.config_file import load_config_file, override
from mixdtp_jax.recipe.crop_schedule import Stage, stages
from mixdtp_jax.runtime.console import set_up_logging
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.tools.plan.gpus import GPUS, gpu_box
from mixdtp_jax.tools.plan.search import largest_batch
from mixdtp_jax.tools.plan.step import StepPlan, plan_step
from mixdtp_jax.tools.plan.targets import CHIPS, Target, this_machine, tpu_slice

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds of a step, from its numbers and those of the target.

  Attributes:
    products: its operations at the stated part of the peak rate.
    memory: its traffic at the full bandwidth; None where that is not known.
    exchange: what each device sends on a ring, at the full rate of two ports;
      None where that is not known.
  """

  products: float
  memory: float | None
  exchange: float | None

  @property
  def step(self) -> float:
    """The longer of the first two, and the exchange as if it came after."""
    return max(self.products, self.memory or 0) + (self.exchange or 0)


def plan(
  *,
  config: str,
  topology: str | None,
  utilisation: float,
  search: Sequence[str] | None,
  out: str | None,
  overrides: Sequence[str],
) -> bool:
  """Plans the training of a configuration; nothing is trained.

  Args:
    config: a file as in configs/.
    topology: a TPU slice or a box of GPUs; None is this machine.
    utilisation: part of the peak rate at which products are made.
    search: look for the largest batch too, for these choices of model.remat,
      all of them if it is empty; None looks for none.
    out: JSON file to write; None writes none.
    overrides: KNOB=VALUE, in the place of the file's.

  Returns:
    Whether every stage fits.

  Raises:
    FileNotFoundError, ImportError, ValueError: see `override`, `tpu_slice`,
      `gpu_box` and `plan_step`.
  """
  if not 0 < utilisation <= 1:
    raise ValueError(f'--utilisation {utilisation}: needs more than 0, up to 1')
  recipe = override(load_config_file(config), overrides)
  choices = _choices(recipe, search)
  target = _target(topology, recipe)
  set_up_logging()  # not before: it asks JAX for this machine's devices
  parts = stages(recipe)
  plans = [plan_step(recipe, stage, target) for stage in parts]
  sections = [
    format_plan(found, recipe, target, utilisation, stage)
    for found, stage in zip(plans, parts, strict=True)
  ]
  print(f'{config} on {target.name}\n\n' + '\n\n'.join(sections), flush=True)
  write = functools.partial(
    _write, out, config, recipe, target, utilisation, plans
  )
  write({})  # what follows takes long
  if choices:
    searched = _search(recipe, target, parts, plans, choices)
    print('\n' + format_search(searched, recipe, target, utilisation))
    write(searched)
  return all(found.fits for found in plans)


def _target(topology, recipe) -> Target:
  if topology is None:
    return this_machine(recipe.model.dtype)
  kind = topology.partition(':')[0]
  if kind in CHIPS:
    return tpu_slice(topology)
  if kind in GPUS:
    return gpu_box(topology)
  raise ValueError(
    f'--topology {topology}: choose one of {", ".join(CHIPS)}, a colon, and '
    f'chips along each axis, such as v5e:4x4, or one of {", ".join(GPUS)}, a '
    'colon, and how many, such as h100:8'
  )


def times(found: StepPlan, target: Target, utilisation: float) -> Times:
  """What a step takes; of one that was not compiled, the products alone."""
  memory = exchange = None
  if target.bandwidth is not None and found.traffic is not None:
    memory = found.traffic / target.bandwidth
  if target.ring is not None:
    exchange = found.sent_bytes / target.ring
  return Times(found.flops / (target.peak * utilisation), memory, exchange)


def _choices(recipe, search) -> list[str]:
  """The values of model.remat to search, from least to most computed anew."""
  possible = ['none', 'blocks', 'full']
  if recipe.model.name == 'prenet':
    possible.remove('full')
  if search is None:
    return []
  if unknown := sorted(set(search) - set(possible)):
    raise ValueError(
      f'--search {", ".join(unknown)}: choose from {", ".join(possible)}'
    )
  return [remat for remat in possible if not search or remat in search]


def _search(recipe, target, parts, plans, choices) -> dict[str, Any]:
  """For each remat, the largest batch at the largest crop, and all plans."""
  stage, known = max(
    zip(parts, plans, strict=True), key=lambda pair: pair[0].crop
  )
  unit = len(target.devices) // recipe.mesh_space * recipe.accumulate_steps
  found, start = {}, known.batch_size // unit
  for remat in choices:
    changed = recipe.copy_and_resolve_references()
    changed.model.remat = remat
    found[remat] = best, _ = largest_batch(
      lambda batch_size, changed=changed: plan_step(
        changed, stage._replace(batch_size=batch_size), target
      ),
      unit,
      known=known if remat == known.remat else None,
      start=start,
    )
    if best is not None:  # what follows needs less
      start = best.batch_size // unit
  return found


def format_plan(
  found: StepPlan,
  recipe: ml_collections.ConfigDict,
  target: Target,
  utilisation: float,
  stage: Stage,
) -> str:
  """What a user wants to know of the step of one stage."""
  each = found.batch_size // (len(target.devices) // recipe.mesh_space)
  space = recipe.mesh_space
  share = f'{each} a device' if space == 1 else f'{each} for {space} devices'
  head = (
    f'updates {stage.start:,} to {stage.end:,}: {found.batch_size} crops of '
    f'{found.crop} pixels, {share}; {recipe.model.dtype}, '
    f'remat {found.remat}; compiled in {found.compile_seconds:.0f} s'
  )
  rows = [('memory of a device', _format_memory(found))]
  rows.append(('products', f'{found.flops / 1e9:,.1f} GFLOP a step and device'))
  if found.memory is not None:
    rows.append(('exchange', _format_exchange(found)))
    loops = (
      f' ({found.unknown_loops} loops of unknown length counted once)'
      if found.unknown_loops
      else ''
    )
    traffic = f'{found.traffic / 1e9:,.1f} GB a step and device{loops}'
    rows.append(('memory traffic', traffic))
    rows += _time_rows(found, recipe, target, utilisation)
  return '\n'.join([head, *(f'  {name:<20}{text}' for name, text in rows)])


def _format_memory(found: StepPlan) -> str:
  available = f'{found.available / _GIB:.2f} GiB'
  if found.needed is None:
    return f'more than the {available}: DOES NOT FIT'
  verdict = 'fits' if found.fits else 'DOES NOT FIT'
  text = f'{found.needed / _GIB:.2f} of {available}: {verdict}'
  if found.memory is None:
    return f'{text} (the compiler gave up)'
  memory = found.memory
  return (
    f'{text} (state and batch {memory.arguments / _GIB:.2f}, temporaries '
    f'{memory.temporaries / _GIB:.2f}, other {memory.other / _GIB:.2f})'
  )


def _format_exchange(found: StepPlan) -> str:
  if not found.collectives:
    return 'none'
  put_in = collections.Counter()
  for collective in found.collectives:
    put_in[collective.kind] += collective.bytes * collective.times
  kinds = ', '.join(
    f'{kind} of {n / 1e6:,.1f} MB' for kind, n in put_in.items()
  )
  return f'{kinds}; a device sends {found.sent_bytes / 1e6:,.1f} MB a step'


def _time_rows(found, recipe, target, utilisation):
  took = times(found, target, utilisation)
  yield (
    'time of products',
    f'{_ms(took.products)} at {utilisation:.0%} of {target.peak / 1e12:,.3g} '
    f'TFLOP/s ({target.peak_source})',
  )
  if took.memory is not None:
    yield (
      'time of memory',
      f'{_ms(took.memory)} at least, at {target.bandwidth / 1e9:,.0f} GB/s: '
      f'products at {_most(found, target):.0%} of the peak at most',
    )
  if took.exchange is not None:
    yield (
      'time of exchange',
      f'{_ms(took.exchange)} on a ring at {target.ring / 1e9:,.0f} GB/s, '
      f'{took.exchange / took.step:.0%} of the step if nothing hides it',
    )
    yield from _scaling_row(found, target, took)
  hours = recipe.num_train_steps * took.step / 3600
  yield (
    'time of a step',
    f'{_ms(took.step)}: {found.batch_size / took.step:,.0f} crops a second, '
    f'{hours:,.1f} hours for {recipe.num_train_steps:,} such updates',
  )


def _scaling_row(found, target, took):
  """A ring of n devices sends 2 (n - 1) / n of what is summed: never twice."""
  if {collective.kind for collective in found.collectives} != {'all-reduce'}:
    return
  most = 2 * sum(c.bytes * c.times for c in found.collectives) / target.ring
  alone = took.step - took.exchange
  yield (
    'scaling',
    f'{_ms(most)} at most on any number of devices: each keeps '
    f'{alone / (alone + most):.0%} of its speed alone',
  )


def _most(found: StepPlan, target: Target) -> float:
  """The part of the peak rate that the memory's bandwidth allows."""
  return min(
    found.flops / target.peak / (found.traffic / target.bandwidth), 1.0
  )


def _ms(duration: float) -> str:
  return f'{duration * 1e3:,.1f} ms'


def format_search(
  searched: dict[str, Any],
  recipe: ml_collections.ConfigDict,
  target: Target,
  utilisation: float,
) -> str:
  """A table with a line for each remat."""
  groups = len(target.devices) // recipe.mesh_space
  name = 'a device' if recipe.mesh_space == 1 else 'shared'
  lines = [
    'largest batch that fits',
    f'{"remat":<8}{name:>9}{"all":>8}{"GiB":>8}{"crops/s":>10}'
    '  smallest batch that does not',
  ]
  for remat, (best, plans) in searched.items():
    failing = [found.batch_size for found in plans if not found.fits]
    above = f'{min(failing) // groups}' if failing else 'not looked for'
    if best is None:
      lines.append(f'{remat:<8}{"none":>9}{"":>26}  {above}')
      continue
    speed = best.batch_size / times(best, target, utilisation).step
    lines.append(
      f'{remat:<8}{best.batch_size // groups:>9}{best.batch_size:>8}'
      f'{best.needed / _GIB:>8.2f}{speed:>10,.0f}  {above}'
    )
  return '\n'.join(lines)


def _write(out, config, recipe, target, utilisation, plans, searched):
  if out is None:
    return
  as_dict = functools.partial(_plan_as_dict, target, utilisation)
  figures = {
    field.name: getattr(target, field.name)
    for field in dataclasses.fields(target)
    if field.name != 'devices'
  }
  content = {
    'config_file': config,
    'target': {**figures, 'devices': len(target.devices)},
    'utilisation': utilisation,
    'fits': all(found.fits for found in plans),
    'stages': [as_dict(found) for found in plans],
    'largest_batches': {
      remat: {
        'best': None if best is None else as_dict(best),
        'tried': [as_dict(found) for found in tried],
      }
      for remat, (best, tried) in searched.items()
    },
    'config': recipe.to_dict(),
  }
  dump_json(content, out)


def _plan_as_dict(target, utilisation, found):
  took = times(found, target, utilisation)
  return {
    **dataclasses.asdict(found),
    'fits': found.fits,
    'sent_bytes': found.sent_bytes,
    'seconds': {**dataclasses.asdict(took), 'step': took.step},
  }
