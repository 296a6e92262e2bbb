"""Plans the steps of a training, prints and writes what it found."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from mixdtp_jax.recipe.config_file import change, load_recipe
from mixdtp_jax.recipe.crop_schedule import Stage, stages
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.tables import show
from mixdtp_jax.tools.plan import report
from mixdtp_jax.tools.plan.step import (
  Search,
  StepPlan,
  largest_batch,
  plan_step,
  times,
)
from mixdtp_jax.tools.plan.targets import Target, find_target


def plan(
  *,
  config: str,
  topology: str | None,
  utilisation: float,
  search: Sequence[str] | None,
  out: str | None,
  overrides: Sequence[str],
) -> bool:
  """Plans a training by the options of the command; returns whether all fits.

  Raises:
    FileNotFoundError, ImportError, ValueError: an option does not fit.
  """
  if not 0 < utilisation <= 1:
    raise ValueError(f'--utilisation {utilisation}: needs more than 0, up to 1')
  recipe = load_recipe(config, overrides)
  choices = _choices(recipe, search)
  target = find_target(topology, recipe.model.dtype)
  parts = stages(recipe)
  plans = [plan_step(recipe, stage, target) for stage in parts]
  show(
    f'{config} on {target.name}',
    *(
      report.step_table(found, recipe, target, utilisation, stage)
      for found, stage in zip(plans, parts, strict=True)
    ),
  )

  def write(searches: Mapping[str, Search]) -> None:
    if out is not None:
      content = _content(target, utilisation, plans, searches)
      recipes = {'config_file': config, 'config': as_mapping(recipe)}
      dump_json({**content, **recipes}, out)

  write({})  # what follows takes long
  if choices:
    searches = _search(recipe, target, parts, plans, choices)
    show('', report.search_table(searches, recipe, target, utilisation))
    write(searches)
  return all(found.fits for found in plans)


def _content(
  target: Target,
  utilisation: float,
  plans: Sequence[StepPlan],
  searches: Mapping[str, Search],
) -> dict[str, Any]:
  fields = (field.name for field in dataclasses.fields(target))
  figures = {name: getattr(target, name) for name in fields}
  as_dict = functools.partial(_as_dict, target=target, utilisation=utilisation)
  return {
    'target': figures | {'devices': len(target.devices)},
    'utilisation': utilisation,
    'fits': all(found.fits for found in plans),
    'stages': list(map(as_dict, plans)),
    'largest_batches': {
      remat: {
        'best': found.best and as_dict(found.best),
        'tried': list(map(as_dict, found.tried)),
      }
      for remat, found in searches.items()
    },
  }


def _as_dict(
  found: StepPlan, target: Target, utilisation: float
) -> dict[str, Any]:
  took = times(found, target, utilisation)
  return {
    **dataclasses.asdict(found),
    'memory': found.memory and found.memory._asdict(),
    'fits': found.fits,
    'sent_bytes': found.sent_bytes,
    'seconds': took._asdict() | {'step': took.step},
  }


def _choices(recipe: Recipe, search: Sequence[str] | None) -> list[str]:
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
  recipe: Recipe,
  target: Target,
  parts: Sequence[Stage],
  plans: Sequence[StepPlan],
  choices: Sequence[str],
) -> dict[str, Search]:
  """Finds for each remat the largest batch at the largest crop."""
  pairs = zip(parts, plans, strict=True)
  stage, known = max(pairs, key=lambda pair: pair[0].crop)
  unit = len(target.devices) // recipe.mesh_space * recipe.accumulate_steps
  found: dict[str, Search] = {}
  start = known.batch_size // unit
  for remat in choices:
    changed = change(recipe, {'model.remat': remat})

    def plan_batch(batch_size: int, changed: Recipe = changed) -> StepPlan:
      sized = stage._replace(batch_size=batch_size)
      return plan_step(changed, sized, target)

    given = known if remat == known.remat else None
    found[remat] = largest_batch(plan_batch, unit, known=given, start=start)
    if best := found[remat].best:  # the next one needs less memory
      start = best.batch_size // unit
  return found
