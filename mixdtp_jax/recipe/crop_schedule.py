"""Stages of training, with crops that grow while batches shrink.

This is Restormer's progressive learning (arXiv:2111.09881, section 3.3). The
configuration alone determines the stages, so an update's number says which
images it takes, even after an interruption.
"""

from typing import NamedTuple

import jax

from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.runtime import mesh as mesh_lib


class Stage(NamedTuple):
  """Updates whose batches have one shape."""

  start: int  # the first of these updates, counted from 0
  end: int  # the first update after them
  crop: int  # side of each crop in pixels
  batch_size: int  # images per update
  images: int  # taken by all updates before `start`

  def images_before(self, step: int) -> int:
    """Returns the images taken before update `step`, one of this stage."""
    return self.images + (step - self.start) * self.batch_size


def stages(recipe: Recipe) -> list[Stage]:
  """Returns a run's stages: data.crop with batch_size, then those of growth."""
  shapes = ((0, recipe.data.crop, recipe.batch_size), *recipe.growth)
  ends = [*(start for start, _, _ in recipe.growth), recipe.num_train_steps]
  found, images = [], 0
  for (start, crop, batch_size), end in zip(shapes, ends, strict=True):
    found.append(Stage(start, end, crop, batch_size, images))
    images = found[-1].images_before(end)
  return found


def images_before(recipe: Recipe, step: int) -> int:
  """Returns the number of images that all updates before `step` take."""
  stage = [s for s in stages(recipe) if s.start <= step][-1]
  return stage.images_before(step)


def check_split(stage: Stage, recipe: Recipe, mesh: jax.sharding.Mesh) -> None:
  """Raises ValueError unless devices can share the stage's batches evenly."""
  data, space = mesh.shape['data'], mesh.shape['space']
  name = f'growth, from update {stage.start} on: ' if stage.start else ''
  if stage.batch_size % (data * recipe.accumulate_steps):
    raise ValueError(
      f'{name}batch_size = {stage.batch_size} is not a multiple of the {data} '
      'devices that share each batch times accumulate_steps = '
      f'{recipe.accumulate_steps}'
    )
  least = mesh_lib.MIN_SHARED_ROWS
  if space > 1 and (stage.crop % space or stage.crop < least):
    raise ValueError(
      f'{name}data.crop = {stage.crop} is not a multiple of mesh_space = '
      f'{space}, or is less than the {least} pixels that can be shared'
    )
