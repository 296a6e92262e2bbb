"""bench inference and training: JAX in turns with variants in PyTorch."""

import contextlib
import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mixdtp_jax.measure import timed
from mixdtp_jax.measure.machine import cores
from mixdtp_jax.measure.timed import Timed
from mixdtp_jax.measure.timing import paired, seconds
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.runtime.console import pip_install
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench.case import (
  Case,
  apart,
  draw_batch,
  draw_params,
  parse_number,
  parse_size,
)

_VARIANTS = ('published', 'eager', 'compile')  # of torch_reference.inference
_MIB = 2**20
_HEAD = ('', 'start s', 'run s', 'images/s', 'MiB', 'time', 'quartiles',
         'memory')  # fmt: skip
_LEAST_GAIN = 1.05  # in images a second, for which a batch is doubled again


def bench_inference(
  case: Case,
  *,
  size: str,
  batch: str,
  repeats: int,
  devices: int = 1,
  opponents: str = 'none',
) -> dict[str, Any]:
  """Measures how a network with drawn weights restores images."""
  names, recipe = _parse_variants(opponents), case.recipe
  cfg = recipe.model
  width, height = parse_size(size)
  count = parse_number('batch', batch)
  mesh = _shared_mesh(devices, count, names)
  params = draw_params(cfg, recipe.seed)
  rainy = draw_batch(count, height, width, recipe.seed)['rainy']
  rainy = whole_image.pad(rainy, cfg.multiple, devices)
  with _pytorch(names, cfg) as (pytorch, torch):
    what = f'inference, {batch} x {width}x{height} pixels'
    machine = case.announce(what, torch)
    ours = timed.make_inference(cfg, params, rainy, mesh, recipe.kernels)
    theirs = {
      name: functools.partial(pytorch.make_inference, name, cfg, params, rainy)
      for name in names
    }
    found = compare(ours, theirs, repeats)
  show(table(found))
  found |= {'width': width, 'height': height, 'batch': count}
  return found | {'machine': machine, 'torch': torch, 'devices': devices}


def bench_training(
  case: Case,
  *,
  crop: int,
  batch: str,
  repeats: int,
  least: int = 1,
  most: int = 1024,
  devices: int = 1,
  opponents: str = 'none',
) -> dict[str, Any]:
  """Measures updates: forward, loss, gradients and optimizer."""
  names, recipe = _parse_variants(opponents), case.recipe
  case.check_crop(crop)
  if batch == 'best' and devices != 1:
    raise ValueError(f'--devices {devices}: needs a --batch of a number')
  params = draw_params(recipe.model, recipe.seed)
  searches: dict[str, Search] = {}

  def draw(name: str) -> timed.Batch:
    if batch != 'best':
      size = parse_number('batch', batch)
    else:
      # In processes of their own, which give a GPU's memory back.
      measure = functools.partial(apart, _update, case, name, crop, repeats)
      searches[name] = fastest_batch(
        lambda size: size / measure(size)['seconds'], most, least
      )
      size = searches[name].best
    return draw_batch(size, crop, crop, recipe.seed)

  def make_torch(name: str) -> Timed:
    return pytorch.make_training(name, recipe, params, draw(name))

  with _pytorch(names, recipe.model) as (pytorch, torch):
    if names:
      pytorch.training.check_optimizer(recipe.optimizer)
    what = f'training, {batch} x {crop}x{crop} pixels'
    machine = case.announce(what, torch)
    images = draw('jax')
    mesh = _shared_mesh(devices, len(images['rainy']), names)
    ours = timed.make_training(recipe, params, images, mesh)
    theirs = {name: functools.partial(make_torch, name) for name in names}
    found = compare(ours, theirs, repeats)
  tables = [table(found)]
  for name, search in searches.items():
    title = (
      f'{name}: best batch {search.best}, search ended by {search.ended_by}'
    )
    rows = [(f'{n}', f'{rate:.3g}') for n, rate in search.rates.items()]
    tables.append(Table(title, ('batch', 'images/s'), rows))
  show(*tables)
  found['searches'] = {name: s._asdict() for name, s in searches.items()}
  held = jax.devices()[0].memory_stats() or {}  # of a CPU unknown
  found['peak_bytes'] = held.get('peak_bytes_in_use')
  found |= {'machine': machine, 'torch': torch}
  return found | {'crop': crop, 'devices': devices}


def _update(
  case: Case, name: str, crop: int, repeats: int, size: int
) -> dict[str, float]:
  """Returns the median 'seconds' of an update by JAX or a variant."""
  recipe = case.recipe
  params = draw_params(recipe.model, recipe.seed)
  images = draw_batch(size, crop, crop, recipe.seed)
  names = [] if name == 'jax' else [name]
  with _pytorch(names, recipe.model) as (pytorch, _):
    if names:
      made = pytorch.make_training(name, recipe, params, images)
    else:
      mesh = make_mesh(jax.devices()[:1])
      made = timed.make_training(recipe, params, images, mesh)
    times = [seconds(made.run)[0] for _ in range(repeats)]
  return {'seconds': float(np.median(times))}


def compare(
  ours: Timed, variants: Mapping[str, Callable[[], Timed]], repeats: int
) -> dict[str, Any]:
  """Times JAX alone, then in turns with each variant, `repeats` runs each.

  A function of `variants` prepares one when its turn has come. What PyTorch
  raises without a compiler or with too little memory is noted as its failure.

  Returns:
    'jax': its cost, the 'seconds' of a run (median), and of all runs 'alone';
    'opponents': for each variant the same, 'timing' in turns with JAX, and
    JAX's time for an image and memory over its own; or its 'failure'.
  """
  alone = [seconds(ours.run)[0] for _ in range(repeats)]
  found: dict[str, Any] = {}
  jax_seconds = list(alone)
  for name, make in variants.items():
    try:
      theirs = make()
      of_jax, of_torch = paired(ours.run, theirs.run, repeats)
    except (RuntimeError, MemoryError, ChildProcessError) as error:
      reason = str(error).strip().partition('\n')[0]
      found[name] = {'failure': f'{type(error).__name__}: {reason}'}
      continue
    jax_seconds += of_jax
    images = theirs.cost.batch / ours.cost.batch
    ratios = images * np.divide(of_jax, of_torch)
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    held, theirs_held = ours.cost.memory.bytes, theirs.cost.memory.bytes
    memory_ratio = None
    if held is not None and theirs_held is not None:
      memory_ratio = held / max(theirs_held, 1)
    found[name] = dataclasses.asdict(theirs.cost) | {
      'seconds': float(np.median(of_torch)),
      'timing': {'jax': of_jax, 'torch': of_torch},
      'time_ratio': median,
      'time_quartiles': (low, high),
      'memory_ratio': memory_ratio,
    }
  jax = {'seconds': float(np.median(jax_seconds)), 'alone': alone}
  return {'jax': dataclasses.asdict(ours.cost) | jax, 'opponents': found}


def table(found: Mapping[str, Any]) -> Table:
  """Returns JAX and each variant, with JAX's share of its time and memory."""
  rows, notes = [('JAX', *_numbers(found['jax']), '', '', '')], []
  for name, variant in found['opponents'].items():
    if 'failure' in variant:
      notes.append(f'PyTorch {name}: {variant["failure"]}')
      continue
    low, high = (f'{ratio:.3f}' for ratio in variant['time_quartiles'])
    time, memory = f'{variant["time_ratio"]:.3f}', variant['memory_ratio']
    memory = '' if memory is None else f'{memory:.2f}'
    ratios = time, f'{low}-{high}', memory
    rows.append((f'PyTorch {name}', *_numbers(variant), *ratios))
  notes.append(f"JAX's memory: {found['jax']['memory']['source']}")
  if len(rows) > 1:
    notes.append(
      "time (for an image), quartiles and memory: JAX's over PyTorch's, of "
      'runs in turns'
    )
  return Table('', _HEAD, rows, '\n'.join(notes))


def _numbers(found: Mapping[str, Any]) -> tuple[str, ...]:
  start = found['lower'] + found['compile'] + found['first']
  held = found['memory']['bytes']
  return (
    f'{start:.3g}',
    f'{found["seconds"]:.4g}',
    f'{found["batch"] / found["seconds"]:.3g}',
    '' if held is None else f'{held / _MIB:.0f}',
  )


class Search(NamedTuple):
  """Batches that were tried, each twice the one before."""

  rates: dict[int, float]  # images a second by batch
  ended_by: str  # 'rate', which grew by less than 5 %, 'memory', or 'limit'

  @property
  def best(self) -> int:
    """The fastest batch."""
    return max(self.rates, key=lambda batch: self.rates[batch])


def fastest_batch(
  rate: Callable[[int], float], most: int, least: int = 1
) -> Search:
  """Doubles the batch from `least` up to `most` while that gains at least 5 %.

  `rate` returns the images a second of a batch, or raises MemoryError, which
  leaves this function only if the smallest batch is too much.
  """
  if most < least:
    raise ValueError(f'--most {most}: needs at least {least}')
  rates: dict[int, float] = {}
  batch = least
  while batch <= most:
    try:
      rates[batch] = rate(batch)
    except MemoryError:
      if not rates:
        raise
      return Search(rates, 'memory')
    if batch > least and rates[batch] < _LEAST_GAIN * rates[batch // 2]:
      return Search(rates, 'rate')
    batch *= 2
  return Search(rates, 'limit')


def _parse_variants(text: str) -> tuple[str, ...]:
  """Returns the names of 'published,eager,compile'; none for 'none'."""
  names = () if text == 'none' else tuple(text.split(','))
  if unknown := [name for name in names if name not in _VARIANTS]:
    raise ValueError(
      f'--opponents {unknown[0]!r}: choose from {",".join(_VARIANTS)}, or none'
    )
  if names and importlib.util.find_spec('torch') is None:
    raise ImportError(
      f'--opponents needs PyTorch: {pip_install("torch")}, or take '
      '--opponents none'
    )
  return names


@contextlib.contextmanager
def _pytorch(
  names: Sequence[str], cfg: AnyConfig
) -> Iterator[tuple[Any, dict[str, Any] | None]]:
  """Yields the module that makes variants, and a description; None without any.

  In float32, neither side uses TF32.
  """
  with contextlib.ExitStack() as stack:
    if exact := cfg.dtype == 'float32':
      stack.enter_context(jax.default_matmul_precision('highest'))
    if not names:
      yield None, None
      return
    import torch

    from mixdtp_jax.torch_reference import inference
    from mixdtp_jax.torch_reference import timed as pytorch

    torch.set_num_threads(cores())
    if exact:
      stack.enter_context(inference.full_precision())
    yield pytorch, inference.describe()


def _shared_mesh(
  devices: int, batch: int, variants: Sequence[str]
) -> jax.sharding.Mesh:
  """Returns a mesh of devices; ValueError if they cannot share the batch."""
  found = jax.devices()
  if devices > len(found):
    raise ValueError(f'--devices {devices}: there are {len(found)}')
  if devices > 1 and variants:
    raise ValueError(f'--devices {devices}: needs --opponents none')
  if batch % devices:
    raise ValueError(f'--batch {batch}: {devices} devices do not divide it')
  return make_mesh(found[:devices])
