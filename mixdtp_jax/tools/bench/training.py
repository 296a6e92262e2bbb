"""bench training: one update, beside PyTorch's forms of the network."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np

from mixdtp_jax.measure import machine, timed
from mixdtp_jax.measure.timed import Timed
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.tools.bench import children, opponents, race, subject
from mixdtp_jax.tools.bench.best import Search, best_batch

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Task:
  """What is measured, all but the batch; see `bench_training`."""

  config: str | None
  overrides: Sequence[str]
  recipe: ml_collections.ConfigDict
  cfg: AnyConfig
  crop: int
  devices: int
  repeats: int
  names: tuple[str, ...]

  def images(self, batch: int) -> Batch:
    return subject.draw_batch(batch, self.crop, self.crop, self.recipe.seed)

  @functools.cached_property
  def params(self) -> dict:
    return subject.draw_params(self.cfg, self.recipe.seed)

  def in_jax(self, batch: int) -> Timed:
    mesh = subject.share(self.devices, batch, self.names)
    images = self.images(batch)
    return timed.make_training(self.recipe, self.params, images, mesh)

  def in_torch(self) -> dict[str, Callable[[Batch], Timed]]:
    return opponents.training(self.names, self.recipe, self.cfg, self.params)

  def jax_rate(self, batch: int) -> float:
    """Images a second, in a process that gives a GPU's memory back."""
    flags = {
      'config': self.config,
      'crop': self.crop,
      'batch': batch,
      'repeats': self.repeats,
    }
    found = children.bench('training', flags, self.overrides)
    return batch / found['jax']['seconds']

  def torch_rate(self, make: Callable[[Batch], Timed], batch: int) -> float:
    return opponents.images_per_second(make, self.images(batch), self.repeats)


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

  Args:
    config: a file as in configs/, whose network, loss and optimizer they are;
      None is the default.
    crop: side of the images in pixels.
    batch: of images, a number; 'best' finds for JAX and for each opponent the
      one at which it is fastest.
    most: largest batch that 'best' tries.
    devices: that share the batch; more than one without opponents alone.
    overrides: KNOB=VALUE, in the place of the config's.
    repeats: timed runs of each, in turns with each opponent.
    against: the opponents; see `opponents.parse`.
    out: JSON file to write; None writes none.

  Raises:
    FileNotFoundError, ImportError, ValueError: a setting does not fit.
    MemoryError: one image is too much for JAX.
  """
  names = opponents.parse(against)
  recipe, cfg = subject.load_recipe(config, overrides)
  subject.check_crop(cfg, crop)
  task = _Task(config, overrides, recipe, cfg, crop, devices, repeats, names)
  at, torch = machine.describe(), opponents.describe(names)
  print(
    f'training, {batch} x {crop}x{crop} pixels; {subject.describe(cfg)}\n'
    f'{machine.one_line(at, torch)}',
    flush=True,
  )
  with opponents.same_precision(names, cfg):
    if batch == 'best':
      result, searches = _race_at_best(task, most)
    else:
      result, searches = _race(task, subject.parse_batch(batch)), {}
  print(race.format_race(result))
  for name, search in searches.items():
    print(_format(name, search))
  if out is not None:
    content = {
      'what': 'training',
      'machine': at,
      'torch': torch,
      'crop': crop,
      'devices': devices,
      'searches': {k: dataclasses.asdict(v) for k, v in searches.items()},
      **race.content(result),
      'config': recipe.to_dict(),
    }
    dump_json(content, out)


def _race(task: _Task, batch: int) -> race.Race:
  images = task.images(batch)
  others = {
    name: functools.partial(make, images)
    for name, make in task.in_torch().items()
  }
  return race.race(task.in_jax(batch), others, task.repeats)


def _race_at_best(task: _Task, most: int) -> tuple[race.Race, dict[str, Any]]:
  """Each at its own best batch; times are compared by image."""
  if task.devices != 1:
    raise ValueError(f'--devices {task.devices}: needs a --batch of a number')
  searches: dict[str, Search] = {'jax': best_batch(task.jax_rate, most)}

  def at_best(name, make):
    rate = functools.partial(task.torch_rate, make)
    searches[name] = best_batch(rate, most)
    return make(task.images(searches[name].best))

  others = {
    name: functools.partial(at_best, name, make)
    for name, make in task.in_torch().items()
  }
  ours = task.in_jax(searches['jax'].best)
  return race.race(ours, others, task.repeats), searches


def _format(name: str, search: Search) -> str:
  rates = ', '.join(f'{b}: {rate:.3g}' for b, rate in search.rates.items())
  return (
    f'{name}: best batch {search.best}, search ended by {search.ended_by}; '
    f'images/s by batch {rates}'
  )
