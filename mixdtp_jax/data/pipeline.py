"""Batches of training crops, and whole images for evaluation.

A training batch is a pure function of (config.seed, step). Its rows have the
counters k = images of all batches before + row; counter k shows image k % N of
epoch k // N, in that epoch's own order, and what is random about its crop, flip
and turn is drawn from (seed, k). Of several data sets, each counts its own
crops. So a run resumes without any iterator state, and every host reads only
its own rows of the global batch.

Images are NHWC float32 in [0, 1].
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from mixdtp_jax import mesh as mesh_lib
from mixdtp_jax.data import rain
from mixdtp_jax.data.cache import CachedPairs
from mixdtp_jax.data.datasets.base import tf
from mixdtp_jax.data.folders import Pairs
from mixdtp_jax.data.mixture import Mixture, open_mixture
from mixdtp_jax.data.rain_ranges import make_rain_ranges
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.growth import Stage, stages

# Values of config.data.crops.
CROPS = ('random', 'second_cell')


class EvalBatch(NamedTuple):
  """Whole images of one shape; only the first len(names) of them count.

  Attributes:
    rainy: (B, H, W, 3) float32 in [0, 1].
    clean: the same.
    names: of the images, at most B.
  """

  rainy: np.ndarray
  clean: np.ndarray
  names: tuple[str, ...]


def train_batches(
  config: ml_collections.ConfigDict, *, start_step: int, mesh: jax.sharding.Mesh
) -> Iterator[dict[str, jax.Array]]:
  """The batches from step `start_step` to the last.

  Args:
    config: configs/default.py; the data set is prepared first if need be.
    start_step: index of the first batch.
    mesh: the devices that share each batch.

  Returns:
    Iterator of {'rainy', 'clean'}, global arrays (batch_size, crop, crop, 3)
    float32 in [0, 1], split over the mesh.

  Raises:
    ValueError: the devices cannot share a batch, see `check_split`.
    FileNotFoundError, ValueError: see `mixture.open_mixture`.
  """
  data, parts = config.data, stages(config)
  for stage in parts:
    check_split(stage, config, mesh)
  pairs = open_mixture(data, max(stage.crop for stage in parts))
  for stage in parts:
    _check_crops(pairs, data, stage.crop)
  left = (s for s in parts if s.end > start_step)
  return itertools.chain.from_iterable(
    _global_batches(config, pairs, stage, start_step, mesh) for stage in left
  )


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


def _global_batches(config, pairs, stage, start_step, mesh):
  sharding = mesh_lib.batch_sharding(mesh)
  shape = (stage.batch_size, stage.crop, stage.crop, 3)
  slices = sharding.addressable_devices_indices_map(shape).values()
  rows = sorted({i for s in slices for i in range(stage.batch_size)[s[0]]})

  def to_global(rows_here: np.ndarray) -> jax.Array:
    return jax.make_array_from_process_local_data(sharding, rows_here, shape)

  local = local_batches(
    config, pairs, stage, start_step=max(start_step, stage.start), rows=rows
  )
  return (jax.tree.map(to_global, batch) for batch in local)


def local_batches(
  config: ml_collections.ConfigDict,
  pairs: Mixture,
  stage: Stage,
  *,
  start_step: int,
  rows: Sequence[int],
) -> Iterator[dict[str, np.ndarray]]:
  """The given rows of a stage's batches from step `start_step` on.

  Args:
    config: gives seed and what data says of the crops.
    pairs: the training images, each with room for the crops.
    stage: gives crop, batch_size and the last step.
    start_step: index of the first batch, one of the stage's.
    rows: ascending, from 0 to batch_size - 1.

  Returns:
    Iterator of {'rainy', 'clean'}: (len(rows), crop, crop, 3) float32 in
    [0, 1].
  """
  data, cached = config.data, CachedPairs(pairs, config.data.cache_mb)
  shape = (len(rows), stage.crop, stage.crop, 3)
  draw_rain = _rain(config)

  def to_batch(drawn):
    rainy, clean = np.empty((2, *shape), np.float32)
    for row, (index, numbers, k) in enumerate(zip(*drawn, strict=True)):
      pair = cached[index]
      clean[row] = _augment(pair['clean'], numbers, data, stage.crop)
      if 'rainy' in pair:
        rainy[row] = _augment(pair['rainy'], numbers, data, stage.crop)
      else:
        rainy[row] = draw_rain(clean[row], k)
    return {'rainy': rainy / 255, 'clean': clean / 255}

  rows = np.asarray(rows, np.int64)
  drawn = _drawn(config, pairs, stage, start_step, rows)
  return map_in_threads(to_batch, drawn)


def _drawn(
  config: ml_collections.ConfigDict,
  pairs: Mixture,
  stage: Stage,
  start_step: int,
  rows: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Of every batch image indices (rows,), random numbers (rows, 4), counters.

  TensorFlow draws them and nothing more: tf.data that calls Python can hang
  when the interpreter ends, as each waits for the other's threads.
  """

  def draw(n):
    step, row = n // len(rows), tf.gather(rows, n % len(rows))
    k = stage.images_before(step) + row
    return _mixed_index(k, pairs, config.seed), _draws(k, config.seed), k

  numbers = tf.data.Dataset.range(start_step * len(rows), stage.end * len(rows))
  drawn = numbers.map(draw).batch(len(rows)).prefetch(tf.data.AUTOTUNE)
  return drawn.as_numpy_iterator()


def _rain(
  config: ml_collections.ConfigDict,
) -> Callable[[np.ndarray, int], tf.Tensor]:
  """(clean crop, counter) -> the crop with rain; both in whole gray levels."""
  ranges = make_rain_ranges(config.data.rain)

  # Traced at the first clean image without a rainy one, if there is any.
  @tf.function(reduce_retracing=True)
  def draw(clean: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    seed = tf.stack([config.seed, k])
    return tf.round(255 * rain.add_rain(clean / 255, seed, ranges))

  return lambda clean, k: draw(tf.constant(clean), tf.constant(k, tf.int64))


def eval_batches(
  pairs: Pairs, *, batch_size: int, limit: int = 0
) -> Iterator[EvalBatch]:
  """Whole images, in groups of equal shape in order of first appearance.

  Args:
    pairs: decoded one batch at a time.
    batch_size: B of every batch; a group's last one repeats its last image.
    limit: how many images, counted from the first; 0 takes all.
  """
  groups: dict[tuple[int, int], list[int]] = {}
  for index in range(min(len(pairs), limit or len(pairs))):
    groups.setdefault(pairs.shape(index), []).append(index)
  for indices in groups.values():
    for start in range(0, len(indices), batch_size):
      yield _eval_batch(
        [pairs[i] for i in indices[start : start + batch_size]], batch_size
      )


def _eval_batch(images: list[dict], batch_size: int) -> EvalBatch:
  names = tuple(image['name'] for image in images)
  images = images + images[-1:] * (batch_size - len(images))
  stack = {
    side: np.stack([i[side] for i in images]).astype(np.float32) / 255
    for side in ('rainy', 'clean')
  }
  return EvalBatch(stack['rainy'], stack['clean'], names)


def _check_crops(
  pairs: Mixture, data: ml_collections.ConfigDict, crop: int
) -> None:
  if data.crops not in CROPS:
    raise ValueError(
      f'data.crops = {data.crops!r}: choose from {", ".join(CROPS)}'
    )
  if data.crops != 'second_cell':
    return
  for index in range(len(pairs)):
    height, width = pairs.shape(index)
    if (height // crop) * (width // crop) < 2:
      raise ValueError(
        f'{pairs[index]["name"]} has {width}x{height} pixels, no room for two '
        f"cells of data.crop = {crop}, of which data.crops = 'second_cell'"
        " takes the second: take a smaller crop, or data.crops = 'random'"
      )


def _image_index(k: tf.Tensor, size: int, seed: int) -> tf.Tensor:
  """Which image counter k shows: a permutation of 0..size-1 in each epoch."""
  order = tf.cast(tf.stack([seed, k // size]), tf.uint32)
  return tf.random.experimental.index_shuffle(k % size, order, size - 1)


def _mixed_index(k: tf.Tensor, pairs: Mixture, seed: int) -> tf.Tensor:
  """Which image of a mixture counter k shows.

  Each round of sum(weights) counters has weight[s] places for set s, in an
  order of its own; so any set's own counter follows from k alone.
  """
  cycle, start = sum(pairs.weights), np.cumsum((0, *pairs.weights))
  order = tf.cast(tf.stack([seed, k // cycle]), tf.uint32)
  place = tf.random.experimental.index_shuffle(k % cycle, order, cycle - 1)
  part = tf.searchsorted(start, place[None], side='right')[0] - 1

  def of(numbers):
    return tf.gather(tf.constant(numbers, tf.int64), part)

  own = k // cycle * of(pairs.weights) + place - of(start[:-1])
  first = np.cumsum((0, *pairs.sizes))[:-1]
  return of(first) + _image_index(own, of(pairs.sizes), seed)


def _draws(k: tf.Tensor, seed: int) -> tf.Tensor:
  """Four random numbers below 2**32, (4,) int64, that (seed, k) fixes."""
  # Named algorithm: TensorFlow's own choice depends on the device.
  draws = tf.random.stateless_uniform(
    (4,), tf.stack([seed, k]), None, None, tf.uint32, alg='philox'
  )
  return tf.cast(draws, tf.int64)


def _augment(
  image: np.ndarray,
  draws: np.ndarray,
  data: ml_collections.ConfigDict,
  crop: int,
) -> np.ndarray:
  """Crops, flips and turns (H, W, 3), by the numbers of `_draws`."""
  if data.transpose_landscape:
    image = _upright(image)
  top, left, flip, turns = draws
  height, width, _ = image.shape
  if data.crops == 'second_cell':
    top, left = _second_cell(width, crop)
  else:
    top, left = top % (height - crop + 1), left % (width - crop + 1)
  image = image[top : top + crop, left : left + crop]
  if data.flip and flip % 2 == 1:
    image = image[:, ::-1]
  if data.rotate:
    image = np.rot90(image, turns % 4)
  return image


def _upright(image: np.ndarray) -> np.ndarray:
  """Swaps rows and columns of (H, W, C) unless it is higher than wide.

  As the MixDTPNet repository does with its training images, square ones
  included.
  """
  height, width, _ = image.shape
  return image if height > width else image.transpose(1, 0, 2)


def _second_cell(width: int, crop: int) -> tuple[int, int]:
  """(top, left) of the second cell of a grid of crops, in row-major order.

  The MixDTPNet repository lays cells of 96 pixels from the top left of each
  training image and always takes the one of index 1: the first one's right
  neighbour, or in an image of one column the cell below. It cuts the image to
  multiples of 32 before, which moves no cell of 96.
  """
  return (0, crop) if width >= 2 * crop else (crop, 0)
