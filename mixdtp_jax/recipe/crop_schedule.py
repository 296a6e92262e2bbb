"""Stages of a training whose crops grow while its batches shrink.

Restormer's progressive learning (arXiv:2111.09881, section 3.3). A stage is
fixed by the configuration alone, so that an update's number says which images
it takes, wherever a run was interrupted.
"""

from typing import NamedTuple

import jax
import ml_collections

from mixdtp_jax.runtime import mesh as mesh_lib


class Stage(NamedTuple):
  """Updates that have batches of one shape.

  Attributes:
    start: the first of these updates, counted from 0.
    end: the first one after them.
    crop: pixels of each side.
    batch_size: images an update.
    images: taken by all updates before `start`.
  """

  start: int
  end: int
  crop: int
  batch_size: int
  images: int

  def images_before(self, step: int) -> int:
    """Images that all updates before `step`, one of this stage's, take."""
    return self.images + (step - self.start) * self.batch_size


def stages(config: ml_collections.ConfigDict) -> list[Stage]:
  """The stages of a run: data.crop and batch_size, then those of growth.

  Raises:
    ValueError: config.growth does not rise from update to update within the
      run, or has a crop or batch of less than 1.
  """
  shapes = ((0, config.data.crop, config.batch_size), *config.growth)
  starts = [start for start, _, _ in shapes]
  ends = [*starts[1:], config.num_train_steps]
  found, images = [], 0
  for (start, crop, batch_size), end in zip(shapes, ends, strict=True):
    if start >= end or min(crop, batch_size) < 1:
      raise ValueError(
        f'growth = {config.growth}: needs (update, pixels, images), the '
        f'updates rising from above 0 to below {config.num_train_steps}, the '
        'others at least 1'
      )
    found.append(Stage(start, end, crop, batch_size, images))
    images = found[-1].images_before(end)
  return found


def images_before(config: ml_collections.ConfigDict, step: int) -> int:
  """Images that all updates before `step` take."""
  stage = [s for s in stages(config) if s.start <= step][-1]
  return stage.images_before(step)


def check_split(
  stage: Stage, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> None:
  """Refuses batches that cannot be split evenly.

  Raises:
    ValueError: the stage's batch_size is no multiple of accumulate_steps times
      the devices along 'data', or its crop none of those along 'space', or
      too small to be shared by them.
  """
  data, space = mesh.shape['data'], mesh.shape['space']
  if stage.batch_size % (data * config.accumulate_steps):
    raise ValueError(
      f'batch_size = {stage.batch_size} is not a multiple of the {data} '
      'devices that share each batch times accumulate_steps = '
      f'{config.accumulate_steps}'
    )
  least = mesh_lib.MIN_SHARED_ROWS
  if space > 1 and (stage.crop % space or stage.crop < least):
    raise ValueError(
      f'data.crop = {stage.crop} is not a multiple of mesh_space = {space}, or '
      f'is less than the {least} pixels that can be shared'
    )
