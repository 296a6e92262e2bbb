"""Stages of training, with crops that grow while batches shrink.

This is Restormer's progressive learning (arXiv:2111.09881, section 3.3). The
configuration alone determines the stages, so an update's number says which
images it takes, even after an interruption.
"""

from typing import NamedTuple

import jax
import ml_collections

from mixdtp_jax.runtime import mesh as mesh_lib


class Stage(NamedTuple):
  """Updates whose batches have one shape.

  Attributes:
    start: the first of these updates, counted from 0.
    end: the first update after them.
    crop: side of each crop in pixels.
    batch_size: images per update.
    images: images taken by all updates before `start`.
  """

  start: int
  end: int
  crop: int
  batch_size: int
  images: int

  def images_before(self, step: int) -> int:
    """Returns the images taken before update `step`, one of this stage."""
    return self.images + (step - self.start) * self.batch_size


def stages(config: ml_collections.ConfigDict) -> list[Stage]:
  """Returns a run's stages: data.crop with batch_size, then those of growth.

  Raises:
    ValueError: the updates of config.growth do not rise within the run, or a
      crop or batch is less than 1.
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
  """Returns the number of images that all updates before `step` take."""
  stage = [s for s in stages(config) if s.start <= step][-1]
  return stage.images_before(step)


def check_split(
  stage: Stage, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> None:
  """Checks that devices can share the stage's batches evenly.

  Raises:
    ValueError: its batch_size is not a multiple of accumulate_steps times the
      devices along 'data'; or its crop is not a multiple of the devices along
      'space', or too small for them.
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
