"""bench data: crops a second that the training pipeline gives."""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from mixdtp_jax.data.mixture import open_mixture
from mixdtp_jax.data.train_batches import train_batches
from mixdtp_jax.measure.machine import describe
from mixdtp_jax.recipe.config_file import DEFAULT, load_config_file
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.mesh import make_mesh

_FIRST = 2_000  # images at most that are decoded before the rest is timed
_WINDOWS = 5  # that the time of measuring is cut into


@dataclasses.dataclass(frozen=True)
class DataRate:
  """Crops a second that the training pipeline gives under one cache limit.

  Attributes:
    cache_mb: the limit, data.cache_mb.
    first_epoch: rate over the first epoch, from opening the data set on: it
      decodes every image. Of a set of over 2,000 images, over as many of them.
    windows: rates afterwards, over equal times one after the other. Of such a
      large set they are still of the first epoch.
  """

  cache_mb: float
  first_epoch: float
  windows: tuple[float, ...]

  @property
  def median(self) -> float:
    """Of the windows."""
    return float(np.median(self.windows))

  @property
  def spread(self) -> tuple[float, float]:
    """First and third quartile of the windows."""
    low, high = np.quantile(self.windows, (0.25, 0.75))
    return float(low), float(high)


def bench_data(
  *,
  config: str | None,
  overrides: Sequence[str],
  seconds: float,
  out: str | None,
) -> None:
  """Measures batches of `pipeline.train_batches`, with and without the cache.

  Nothing else takes the batches, so a training step leaves less of the cores.

  Args:
    config: recipe, whose data, batch_size and seed count; None is the default.
      Without its data.data_dir the data set is prepared in a temporary folder.
    overrides: 'OPTION=VALUE', options of the recipe to change.
    seconds: of measuring after the first epoch, each with and without.
    out: JSON file to write; None writes none.

  Raises:
    FileNotFoundError, ValueError: the file, or `pipeline.train_batches`.
  """
  if seconds <= 0:
    raise ValueError(f'--seconds {seconds}: needs more than 0')
  recipe = load_config_file(config or DEFAULT, overrides)
  machine = describe()
  with tempfile.TemporaryDirectory() as once:
    recipe.data.data_dir = recipe.data.data_dir or once
    images = len(open_mixture(recipe.data, recipe.data.crop))
    rates = [
      measure_data(recipe, limit, images, seconds)
      for limit in dict.fromkeys((recipe.data.cache_mb, 0))
    ]
  print(_format_data(recipe, images, machine, rates))
  if out is not None:
    content = {
      'machine': machine,
      'training_images': images,
      'crops_per_second': [_content(rate) for rate in rates],
      'config': recipe.to_dict(),
    }
    dump_json(content, out)


def measure_data(
  config: ml_collections.ConfigDict,
  cache_mb: float,
  images: int,
  seconds: float,
) -> DataRate:
  """Measures the first epoch, and then for some seconds.

  Args:
    config: configs/default.py, its data set prepared or with a source.
    cache_mb: in the place of its data.cache_mb.
    images: in an epoch.
    seconds: after the first epoch.
  """
  config = config.copy_and_resolve_references()
  config.data.cache_mb = cache_mb
  # Batches of the first stage without an end.
  config.growth, config.num_train_steps = (), np.iinfo(np.int32).max
  steps = -(-min(images, _FIRST) // config.batch_size)
  start = time.perf_counter()
  batches = train_batches(config, start_step=0, mesh=make_mesh())
  for batch in itertools.islice(batches, steps):
    jax.block_until_ready(batch)
  first = steps * config.batch_size / (time.perf_counter() - start)
  windows = [
    _rate(batches, seconds / _WINDOWS) * config.batch_size
    for _ in range(_WINDOWS)
  ]
  return DataRate(cache_mb, first, tuple(windows))


def _rate(batches: Iterator[Any], seconds: float) -> float:
  """Batches a second, over the time given and the rest of the last batch."""
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds:
    jax.block_until_ready(next(batches))
    count += 1
  return count / elapsed


def _content(rate: DataRate) -> dict[str, Any]:
  return {
    **dataclasses.asdict(rate),
    'median': rate.median,
    'quartiles': rate.spread,
  }


def _format_data(config, images, machine, rates) -> str:
  lines = [
    f'{config.data.name}, {images} training images: crops of '
    f'{config.data.crop} pixels in batches of {config.batch_size}; '
    f'{machine["cores"]} cores, load {machine["load_before"]:.1f} before',
    'crops a second',
    f'{"cache (MiB)":<12}{"first epoch":>12}{"then":>9}{"quartiles":>18}',
  ]
  for rate in rates:
    low, high = rate.spread
    lines.append(
      f'{rate.cache_mb:<12}{rate.first_epoch:>12.0f}{rate.median:>9.0f}'
      f'{f"{low:.0f} - {high:.0f}":>18}'
    )
  return '\n'.join(lines)
