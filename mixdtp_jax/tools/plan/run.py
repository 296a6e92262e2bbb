"""Plans the steps of a training, prints and writes what it found."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections

from mixdtp_jax.recipe.config_file import load_config_file
from mixdtp_jax.recipe.crop_schedule import Stage, stages
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.tables import show
from mixdtp_jax.tools.plan import report
from mixdtp_jax.tools.plan.gpus import GPUS, gpu_box
from mixdtp_jax.tools.plan.search import Search, largest_batch
from mixdtp_jax.tools.plan.step import StepPlan, plan_step
from mixdtp_jax.tools.plan.targets import CHIPS, Target, this_machine, tpu_slice
from mixdtp_jax.tools.plan.times import times


def plan(
  *,
  config: str,
  topology: str | None,
  utilisation: float,
  search: Sequence[str] | None,
  out: str | None,
  overrides: Sequence[str],
) -> bool:
  """Plans the training of a recipe; nothing is trained.

  The arguments are the options of the command.

  Returns:
    Whether every stage fits.

  Raises:
    FileNotFoundError, ImportError, ValueError: a setting does not fit.
  """
  if not 0 < utilisation <= 1:
    raise ValueError(f'--utilisation {utilisation}: needs more than 0, up to 1')
  recipe = load_config_file(config, overrides)
  choices = _choices(recipe, search)
  target = _target(topology, recipe)
  parts = stages(recipe)
  plans = [plan_step(recipe, stage, target) for stage in parts]
  show(
    f'{config} on {target.name}',
    *(
      report.step_table(found, recipe, target, utilisation, stage)
      for found, stage in zip(plans, parts, strict=True)
    ),
  )
  content = _content(config, recipe, target, utilisation, plans)
  if out is not None:
    dump_json(content, out)  # what follows takes long
  if choices:
    searches = _search(recipe, target, parts, plans, choices)
    show('', report.search_table(searches, recipe, target, utilisation))
    content['largest_batches'] = {
      remat: {
        'best': found.best and _as_dict(found.best, target, utilisation),
        'tried': [_as_dict(p, target, utilisation) for p in found.tried],
      }
      for remat, found in searches.items()
    }
    if out is not None:
      dump_json(content, out)
  return all(found.fits for found in plans)


def _target(topology: str | None, recipe: ml_collections.ConfigDict) -> Target:
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
    'colon, and the number of GPUs, such as h100:8'
  )


def _choices(
  recipe: ml_collections.ConfigDict, search: Sequence[str] | None
) -> list[str]:
  """Returns the values of model.remat to search, from most to least memory."""
  if search is None:
    return []
  possible = ['none', 'blocks', 'full']
  if recipe.model.name == 'prenet':
    possible.remove('full')
  if unknown := sorted(set(search) - set(possible)):
    raise ValueError(
      f'--search {", ".join(unknown)}: choose from {", ".join(possible)}'
    )
  return [remat for remat in possible if not search or remat in search]


def _search(
  recipe: ml_collections.ConfigDict,
  target: Target,
  parts: list[Stage],
  plans: list[StepPlan],
  choices: list[str],
) -> dict[str, Search]:
  """Finds for each remat the largest batch at the largest crop."""
  stage, known = max(
    zip(parts, plans, strict=True), key=lambda pair: pair[0].crop
  )
  unit = len(target.devices) // recipe.mesh_space * recipe.accumulate_steps
  found, start = {}, known.batch_size // unit
  for remat in choices:
    changed = recipe.copy_and_resolve_references()
    changed.model.remat = remat
    found[remat] = largest_batch(
      lambda batch_size, changed=changed: plan_step(
        changed, stage._replace(batch_size=batch_size), target
      ),
      unit,
      known=known if remat == known.remat else None,
      start=start,
    )
    if best := found[remat].best:  # the next one needs less memory
      start = best.batch_size // unit
  return found


def _content(config, recipe, target, utilisation, plans) -> dict[str, Any]:
  """Returns everything but the search, for JSON."""
  figures = {
    field.name: getattr(target, field.name)
    for field in dataclasses.fields(target)
  }
  return {
    'config_file': config,
    'target': figures | {'devices': len(target.devices)},
    'utilisation': utilisation,
    'fits': all(found.fits for found in plans),
    'stages': [_as_dict(found, target, utilisation) for found in plans],
    'largest_batches': {},
    'config': recipe.to_dict(),
  }


def _as_dict(found: StepPlan, target: Target, utilisation: float):
  took = times(found, target, utilisation)
  return {
    **dataclasses.asdict(found),
    'fits': found.fits,
    'sent_bytes': found.sent_bytes,
    'seconds': took._asdict() | {'step': took.step},
  }
