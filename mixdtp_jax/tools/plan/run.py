"""Plans the steps of a training, prints and writes what it found."""

import dataclasses
from collections.abc import Mapping, Sequence

from mixdtp_jax.recipe.config_file import change, load_recipe
from mixdtp_jax.recipe.crop_schedule import Stage, stages
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.tables import show
from mixdtp_jax.tools.plan import report, step
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
  """Plans a training by the command's options; returns whether all fits."""
  if not 0 < utilisation <= 1:
    raise ValueError(f'--utilisation {utilisation}: needs more than 0, up to 1')
  recipe = load_recipe(config, overrides)
  choices = _choices(recipe, search)
  target = find_target(topology, recipe.model.dtype)
  parts = stages(recipe)
  plans = [step.plan_step(recipe, s, target, utilisation) for s in parts]
  fits = all(found.fits for found in plans)
  show(
    f'{config} on {target.name}',
    *(
      report.step_table(found, recipe, target, utilisation, stage)
      for found, stage in zip(plans, parts, strict=True)
    ),
  )

  def write(searches: Mapping[str, step.Search]) -> None:
    if out is None:
      return
    figures = {
      field.name: getattr(target, field.name)
      for field in dataclasses.fields(target)
    }
    content = {
      'target': figures | {'devices': len(target.devices)},
      'utilisation': utilisation,
      'fits': fits,
      'stages': [dataclasses.asdict(found) for found in plans],
      'largest_batches': {
        remat: {
          'best': found.best and dataclasses.asdict(found.best),
          'tried': [dataclasses.asdict(one) for one in found.tried],
        }
        for remat, found in searches.items()
      },
      'config_file': config,
      'config': as_mapping(recipe),
    }
    dump_json(content, out)

  write({})  # what follows takes long
  if choices:
    # At the largest crop.
    stage, known = max(
      zip(parts, plans, strict=True), key=lambda pair: pair[0].crop
    )
    searches = _search(recipe, target, utilisation, stage, known, choices)
    show('', report.search_table(searches, recipe, target))
    write(searches)
  return fits


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
  utilisation: float,
  stage: Stage,
  known: step.StepPlan,
  choices: Sequence[str],
) -> dict[str, step.Search]:
  """Finds the largest batch for each remat; `known` plans that of the stage."""
  unit = len(target.devices) // recipe.mesh_space * recipe.accumulate_steps
  found: dict[str, step.Search] = {}
  start = known.batch_size // unit
  for remat in choices:
    changed = change(recipe, {'model.remat': remat})

    def plan_batch(batch_size: int, changed: Recipe = changed) -> step.StepPlan:
      sized = stage._replace(batch_size=batch_size)
      return step.plan_step(changed, sized, target, utilisation)

    given = known if remat == known.remat else None
    largest = step.largest_batch(plan_batch, unit, known=given, start=start)
    found[remat] = largest
    if best := found[remat].best:  # the next one needs less memory
      start = best.batch_size // unit
  return found
