"""Sampling: which image and random numbers each training crop gets."""

from collections.abc import Iterator

import numpy as np

from mixdtp_jax.data.mixture import Mixture
from mixdtp_jax.data.tf import tf
from mixdtp_jax.recipe.crop_schedule import Stage
from mixdtp_jax.recipe.knobs import Recipe


def drawn_numbers(
  config: Recipe,
  pairs: Mixture,
  stage: Stage,
  start_step: int,
  rows: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Yields image indices (rows,), random numbers (rows, 4), counters (rows,).

  Arguments are those of `train_batches.local_batches`. Only these numbers come
  from tf.data: a map that calls Python can deadlock when the interpreter exits.
  """

  def draw(n):
    step, row = n // len(rows), tf.gather(rows, n % len(rows))
    k = stage.images_before(step) + row
    return _mixed_index(k, pairs, config.seed), _draws(k, config.seed), k

  numbers = tf.data.Dataset.range(start_step * len(rows), stage.end * len(rows))
  drawn = numbers.map(draw).batch(len(rows)).prefetch(tf.data.AUTOTUNE)
  return drawn.as_numpy_iterator()


def _image_index(k: tf.Tensor, size: int, seed: int) -> tf.Tensor:
  """Returns the image of counter k: each epoch permutes 0..size-1."""
  order = tf.cast(tf.stack([seed, k // size]), tf.uint32)
  return tf.random.experimental.index_shuffle(k % size, order, size - 1)


def _mixed_index(k: tf.Tensor, pairs: Mixture, seed: int) -> tf.Tensor:
  """Returns the image of a mixture that counter k shows.

  Each round of sum(weights) counters has weights[s] places for set s, in an
  order of its own. So the counter within a set follows from k alone.
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
  """Returns four random numbers below 2**32 for (seed, k): (4,) int64."""
  # A named algorithm, because TensorFlow's own choice depends on the device.
  draws = tf.random.stateless_uniform(
    (4,), tf.stack([seed, k]), None, None, tf.uint32, alg='philox'
  )
  return tf.cast(draws, tf.int64)
