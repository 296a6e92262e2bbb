"""Batches of training crops.

A training batch is a pure function of (config.seed, step). Row r of a batch has
the counter k = images of all previous batches + r. It shows image k % N of
epoch k // N, in that epoch's own order; its crop, mirroring and turn are drawn
from (seed, k). With several data sets, each has a counter of its own. So a run
resumes without iterator state, and each host reads only its own rows.

Images are NHWC, uint8: the step makes them float32 in [0, 1], so that a quarter
of the bytes travel to the devices. Drawn rain is rounded to whole gray levels.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from mixdtp_jax.data.crops import check_crops, cut_crop
from mixdtp_jax.data.mixture import Mixture, open_mixture
from mixdtp_jax.data.rain.draw import add_rain
from mixdtp_jax.data.sampling import drawn_numbers
from mixdtp_jax.data.tf import tf
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.recipe.crop_schedule import Stage, check_split, stages
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.runtime import mesh as mesh_lib


def train_batches(
  config: Recipe, *, start_step: int, mesh: jax.sharding.Mesh
) -> Iterator[dict[str, jax.Array]]:
  """Returns the batches from step `start_step` to the last one.

  The data set is prepared first if necessary.

  Returns:
    An iterator of {'rainy', 'clean'}: global arrays (batch_size, crop, crop,
    3), uint8, split over the mesh. Errors are those of `check_split`,
    `open_mixture` and `check_crops`.
  """
  data, parts = config.data, stages(config)
  for stage in parts:
    check_split(stage, config, mesh)
  pairs = open_mixture(data, max(stage.crop for stage in parts))
  for stage in parts:
    check_crops(pairs, data, stage.crop)
  left = (s for s in parts if s.end > start_step)
  return itertools.chain.from_iterable(
    _global_batches(config, pairs, stage, start_step, mesh) for stage in left
  )


def _global_batches(config, pairs, stage, start_step, mesh):
  sharding = mesh_lib.batch_sharding(mesh)
  shape = (stage.batch_size, stage.crop, stage.crop, 3)
  slices = sharding.addressable_devices_indices_map(shape).values()
  rows = sorted({i for s in slices if s for i in range(stage.batch_size)[s[0]]})

  def to_global(rows_here: np.ndarray) -> jax.Array:
    return jax.make_array_from_process_local_data(sharding, rows_here, shape)

  local = local_batches(
    config, pairs, stage, start_step=max(start_step, stage.start), rows=rows
  )
  return (jax.tree.map(to_global, batch) for batch in local)


def local_batches(
  config: Recipe,
  pairs: Mixture,
  stage: Stage,
  *,
  start_step: int,
  rows: Sequence[int],
) -> Iterator[dict[str, np.ndarray]]:
  """Returns some rows of a stage's batches, from step `start_step` on.

  Each of `pairs` has room for the crops; `rows` are ascending.

  Returns:
    An iterator of {'rainy', 'clean'}: (len(rows), crop, crop, 3), uint8.
  """
  data = config.data
  shape = (len(rows), stage.crop, stage.crop, 3)
  draw_rain = _rain(config)

  def to_batch(drawn):
    rainy, clean = np.empty((2, *shape), np.uint8)
    for row, (index, numbers, k) in enumerate(zip(*drawn, strict=True)):
      pair = pairs[index]
      clean[row] = cut_crop(pair['clean'], numbers, data, stage.crop)
      rainy[row] = clean[row]
      if 'rainy' in pair:
        rainy[row] = cut_crop(pair['rainy'], numbers, data, stage.crop)
        # The crop's turn takes the two lowest bits of this number.
        if (numbers[3] >> 2) / 2**30 >= data.rain_on_pairs:
          continue
      rainy[row] = draw_rain(rainy[row], k)
    return {'rainy': rainy, 'clean': clean}

  drawn = drawn_numbers(
    config, pairs, stage, start_step, np.asarray(rows, np.int64)
  )
  return map_in_threads(to_batch, drawn)


def _rain(config: Recipe) -> Callable[[np.ndarray, int], tf.Tensor]:
  """Returns a function of a uint8 crop and its counter to a crop with rain."""
  ranges = config.data.rain

  # Traced at the first image that rain is drawn on.
  @tf.function(reduce_retracing=True)
  def draw(image: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    seed = tf.stack([config.seed, k])
    rainy = add_rain(tf.cast(image, tf.float32) / 255, seed, ranges)
    return tf.cast(tf.round(255 * rainy), tf.uint8)

  return lambda image, k: draw(tf.constant(image), tf.constant(k, tf.int64))
