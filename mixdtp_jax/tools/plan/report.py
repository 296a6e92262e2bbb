"""The tables of a plan."""

import collections
from collections.abc import Iterator, Mapping

from mixdtp_jax.recipe.crop_schedule import Stage
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.runtime.tables import Table
from mixdtp_jax.tools.plan.step import Search, StepPlan
from mixdtp_jax.tools.plan.targets import Target

_GIB = 2**30


def step_table(
  found: StepPlan,
  recipe: Recipe,
  target: Target,
  utilisation: float,
  stage: Stage,
) -> Table:
  """Returns what the step of a stage needs and takes."""
  space = recipe.mesh_space
  each = found.batch_size // (len(target.devices) // space)
  share = f'{each} a device' if space == 1 else f'{each} for {space} devices'
  title = (
    f'updates {stage.start:,} to {stage.end:,}: {found.batch_size} crops of '
    f'{found.crop} pixels, {share}; {recipe.model.dtype}, '
    f'remat {found.remat}; compiled in {found.compile_seconds:.0f} s'
  )
  rows = [
    ('memory of a device', _memory(found)),
    ('products', f'{found.flops / 1e9:,.1f} GFLOP a step and device'),
  ]
  if found.traffic is not None:
    traffic = f'{found.traffic / 1e9:,.1f} GB a step and device'
    if found.unknown_loops:
      traffic += (
        f' ({found.unknown_loops} loops of unknown length counted once)'
      )
    rows += [('exchange', _exchange(found)), ('memory traffic', traffic)]
    rows += _time_rows(found, recipe.num_train_steps, target, utilisation)
  return Table(title, ('', ''), rows)


def _memory(found: StepPlan) -> str:
  available = f'{found.available / _GIB:.2f} GiB'
  if found.needed is None:
    return f'more than the {available}: DOES NOT FIT'
  verdict = 'fits' if found.fits else 'DOES NOT FIT'
  text = f'{found.needed / _GIB:.2f} of {available}: {verdict}'
  if (memory := found.memory) is None:
    return f'{text} (the compiler gave up)'
  return (
    f'{text} (state and batch {memory.arguments / _GIB:.2f}, temporaries '
    f'{memory.temporaries / _GIB:.2f}, other {memory.other / _GIB:.2f})'
  )


def _exchange(found: StepPlan) -> str:
  if not found.collectives:
    return 'none'
  put_in: collections.Counter[str] = collections.Counter()
  for collective in found.collectives:
    put_in[collective.kind] += collective.bytes * collective.times
  kinds = ', '.join(
    f'{kind} of {n / 1e6:,.1f} MB' for kind, n in put_in.items()
  )
  return f'{kinds}; a device sends {found.sent_bytes / 1e6:,.1f} MB a step'


def _time_rows(
  found: StepPlan, updates: int, target: Target, utilisation: float
) -> Iterator[tuple[str, str]]:
  took = found.seconds
  yield (
    'time of products',
    f'{_ms(took.products)} at {utilisation:.0%} of {target.peak / 1e12:,.3g} '
    f'TFLOP/s ({target.peak_source})',
  )
  if took.memory is not None and target.bandwidth is not None:
    most = min(found.flops / target.peak / took.memory, 1.0)
    yield (
      'time of memory',
      f'{_ms(took.memory)} at least, at {target.bandwidth / 1e9:,.0f} GB/s: '
      f'products at {most:.0%} of the peak at most',
    )
  if took.exchange is not None and target.ring is not None:
    yield (
      'time of exchange',
      f'{_ms(took.exchange)} on a ring at {target.ring / 1e9:,.0f} GB/s, '
      f'{took.exchange / took.step:.0%} of the step if nothing hides it',
    )
    if {collective.kind for collective in found.collectives} == {'all-reduce'}:
      # Of what is summed, a ring of n devices sends 2 (n - 1) / n: never twice.
      summed = sum(c.bytes * c.times for c in found.collectives)
      limit, alone = 2 * summed / target.ring, took.step - took.exchange
      yield (
        'scaling',
        f'{_ms(limit)} at most on any number of devices: each keeps '
        f'{alone / (alone + limit):.0%} of its speed alone',
      )
  yield (
    'time of a step',
    f'{_ms(took.step)}: {found.batch_size / took.step:,.0f} crops a second, '
    f'{updates * took.step / 3600:,.1f} hours for {updates:,} such updates',
  )


def _ms(duration: float) -> str:
  return f'{duration * 1e3:,.1f} ms'


def search_table(
  searches: Mapping[str, Search], recipe: Recipe, target: Target
) -> Table:
  """Returns the largest batch for each remat."""
  groups = len(target.devices) // recipe.mesh_space
  rows = []
  for remat, found in searches.items():
    failing = [plan.batch_size for plan in found.tried if not plan.fits]
    above = f'{min(failing) // groups}' if failing else 'not looked for'
    numbers = ['none', '', '', '']
    if (best := found.best) and best.needed:
      size, speed = best.batch_size, best.batch_size / best.seconds.step
      needed = f'{best.needed / _GIB:.2f}'
      numbers = [f'{size // groups}', f'{size}', needed, f'{speed:,.0f}']
    rows.append((remat, *numbers, above))
  share = 'a device' if recipe.mesh_space == 1 else 'shared'
  head = ('remat', share, 'all', 'GiB', 'crops/s', 'smallest that does not fit')
  return Table('largest batch that fits', head, rows)
