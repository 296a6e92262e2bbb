"""bench data: crops a second from the training pipeline."""

import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mixdtp_jax.data.mixture import open_mixture
from mixdtp_jax.data.train_batches import train_batches
from mixdtp_jax.recipe.config_file import change
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench.case import Case

_FIRST = 2_000  # images at most that are decoded before the rest is timed
_WINDOWS = 5  # of equal length, into which the rest is cut
_HEAD = ('cache (MiB)', 'first epoch', 'then', '1st quartile', '3rd quartile')


def bench_data(case: Case, *, seconds: float) -> dict[str, Any]:
  """Measures batches of `train_batches`, with and without the cache.

  No training step takes the batches; one would leave less of the cores.
  """
  if seconds <= 0:
    raise ValueError(f'--seconds {seconds}: needs more than 0')
  with tempfile.TemporaryDirectory() as temporary:
    folder = case.recipe.data.data_dir or temporary
    recipe = change(case.recipe, {'data.data_dir': folder})
    data = recipe.data
    images = len(open_mixture(data, data.crop))
    machine = case.announce(
      f'data, {data.name}, {images} training images: crops of {data.crop} '
      f'pixels in batches of {recipe.batch_size}'
    )
    rates = [
      _measure(recipe, limit, images, seconds)
      for limit in dict.fromkeys((data.cache_mb, 0))
    ]
  rows = []
  for rate in rates:
    numbers = rate['first_epoch'], rate['median'], *rate['quartiles']
    rows.append((f'{rate["cache_mb"]:g}', *(f'{n:.0f}' for n in numbers)))
  show(Table('crops a second', _HEAD, rows))
  found = {'machine': machine, 'training_images': images}
  return found | {'crops_per_second': rates}


def _measure(
  config: Recipe, cache_mb: float, images: int, seconds: float
) -> dict[str, Any]:
  """Returns crops a second of the first epoch, and of equal times after it."""
  # Batches of the first stage without an end.
  endless = {'growth': (), 'num_train_steps': np.iinfo(np.int32).max}
  config = change(config, {'data.cache_mb': cache_mb, **endless})
  steps = math.ceil(min(images, _FIRST) / config.batch_size)
  start = time.perf_counter()
  batches = train_batches(config, start_step=0, mesh=make_mesh())
  for batch in itertools.islice(batches, steps):
    jax.block_until_ready(batch)
  first = steps * config.batch_size / (time.perf_counter() - start)
  windows = [
    _rate(batches, seconds / _WINDOWS) * config.batch_size
    for _ in range(_WINDOWS)
  ]
  return {
    'cache_mb': cache_mb,
    'first_epoch': first,
    'windows': windows,
    'median': float(np.median(windows)),
    'quartiles': np.quantile(windows, (0.25, 0.75)).tolist(),
  }


def _rate(batches: Iterator[Any], seconds: float) -> float:
  """Returns batches a second, over the time given and the last batch's rest."""
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds:
    jax.block_until_ready(next(batches))
    count += 1
  return count / elapsed
