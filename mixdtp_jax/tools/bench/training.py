"""bench training: one update, beside variants in PyTorch."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

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
  searches: dict[str, Search] = {}

  def draw(size: int) -> dict[str, np.ndarray]:
    return case.draw_batch(size, crop, crop, recipe.seed)

  def find_size(name: str, rate: Callable[[int], float]) -> int:
    if batch != 'best':
      return case.parse_number('batch', batch)
    searches[name] = fastest_batch(rate, most)
    return searches[name].best

  def jax_rate(size: int) -> float:
    # In a process of its own, which gives a GPU's memory back.
    options = {'crop': crop, 'batch': size, 'repeats': repeats}
    options['config'] = config
    found = subprocesses.bench('training', options, overrides)
    return size / found['jax']['seconds']

  def make_jax() -> Timed:
    size = find_size('jax', jax_rate)
    mesh = case.make_shared_mesh(devices, size, names)
    return timed.make_training(recipe, params, draw(size), mesh)

  def make_torch(name: str) -> Timed:
    def make(size):
      return torch_variants.make_training(name, recipe, cfg, params, draw(size))

    def rate(size):
      return torch_variants.images_per_second(lambda: make(size), size, repeats)

    return make(find_size(name, rate))

  with torch_variants.same_precision(names, cfg):
    found = comparison.compare(
      make_jax(),
      {name: functools.partial(make_torch, name) for name in names},
      repeats,
    )
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
    **found,
  )


def _table(name: str, search: Search) -> Table:
  title = f'{name}: best batch {search.best}, search ended by {search.ended_by}'
  rows = [(str(b), f'{rate:.3g}') for b, rate in search.rates.items()]
  return Table(title, ('batch', 'images/s'), rows)
