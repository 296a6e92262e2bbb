"""bench training: one update, beside variants in PyTorch."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np

from mixdtp_jax.measure import timed
from mixdtp_jax.measure.timed import Timed
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench import (
  case,
  comparison,
  subprocesses,
  torch_variants,
)
from mixdtp_jax.tools.bench.batch_search import Search, fastest_batch

Batch = dict[str, np.ndarray]


def bench_training(
  *,
  config: str | None,
  crop: int,
  batch: str,
  most: int,
  devices: int,
  overrides: Sequence[str],
  repeats: int,
  against: str,
  out: str | None,
) -> None:
  """Measures updates: forward, loss, gradients and optimizer.

  The arguments are the options of the command.

  Raises:
    FileNotFoundError, ImportError, ValueError: a setting does not fit.
    MemoryError: one image is too much for JAX.
  """
  names = torch_variants.parse(against)
  recipe, cfg = case.load_recipe(config, overrides)
  case.check_crop(cfg, crop)
  if batch == 'best' and devices != 1:
    raise ValueError(f'--devices {devices}: needs a --batch of a number')
  torch = torch_variants.describe(names)
  machine = case.announce(
    f'training, {batch} x {crop}x{crop} pixels; {case.describe(cfg)}', torch
  )
  params = case.draw_params(cfg, recipe.seed)
  options = {'config': config, 'crop': crop, 'repeats': repeats}
  batches = _Batches(recipe, crop, batch, most, options, overrides)
  makers = torch_variants.training(names, recipe, cfg, params)
  with torch_variants.same_precision(names, cfg):
    images = batches.for_jax()
    mesh = case.make_shared_mesh(devices, len(images['rainy']), names)
    found = comparison.compare(
      timed.make_training(recipe, params, images, mesh),
      {
        name: lambda name=name, make=make: make(batches.for_torch(name, make))
        for name, make in makers.items()
      },
      repeats,
    )
  searches = batches.searches
  show(comparison.table(found), *map(_table, searches, searches.values()))
  case.write(
    out,
    recipe,
    what='training',
    machine=machine,
    torch=torch,
    crop=crop,
    devices=devices,
    searches={k: dataclasses.asdict(v) for k, v in searches.items()},
    **comparison.content(found),
  )


@dataclasses.dataclass
class _Batches:
  """Batches of the size that is asked for, or of the fastest one.

  Attributes:
    recipe: gives the seed.
    crop: side in pixels.
    size: a number, or 'best'.
    most: largest batch to try.
    options: of the processes that measure JAX.
    overrides: of the same.
    searches: what was tried, by name.
  """

  recipe: ml_collections.ConfigDict
  crop: int
  size: str
  most: int
  options: dict[str, Any]
  overrides: Sequence[str]
  searches: dict[str, Search] = dataclasses.field(default_factory=dict)

  def for_jax(self) -> Batch:
    """Searches in processes of their own, which give a GPU's memory back."""

    def rate(size):
      options = self.options | {'batch': size}
      found = subprocesses.bench('training', options, self.overrides)
      return size / found['jax']['seconds']

    return self._draw('jax', rate)

  def for_torch(self, name: str, make: Callable[[Batch], Timed]) -> Batch:
    """Searches in this process."""
    repeats = self.options['repeats']
    return self._draw(
      name,
      lambda size: torch_variants.images_per_second(
        make, self._images(size), repeats
      ),
    )

  def _draw(self, name: str, rate: Callable[[int], float]) -> Batch:
    if self.size != 'best':
      return self._images(case.parse_batch(self.size))
    self.searches[name] = fastest_batch(rate, self.most)
    return self._images(self.searches[name].best)

  def _images(self, size: int) -> Batch:
    return case.draw_batch(size, self.crop, self.crop, self.recipe.seed)


def _table(name: str, search: Search) -> Table:
  title = f'{name}: best batch {search.best}, search ended by {search.ended_by}'
  rows = [(str(b), f'{rate:.3g}') for b, rate in search.rates.items()]
  return Table(title, ('batch', 'images/s'), rows)
