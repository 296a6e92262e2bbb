"""bench restoring: whole pictures by the engine, beside one program for each.

Every measurement has a process of its own, so its peak of memory is its own.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import psutil

from mixdtp_jax.measure.memory import planned
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.ops import choice
from mixdtp_jax.restoration.engine import Engine
from mixdtp_jax.restoration.memory_plan import most_held
from mixdtp_jax.restoration.whole_image import pad
from mixdtp_jax.runtime.sizes import parse_bytes
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench.case import (
  Case,
  apart,
  draw_batch,
  draw_params,
  parse_size,
)

_LEAST, _MOST = 300_000, 4_000_000  # pixels of pictures of many sizes
_LONG = 300  # seconds, after which nothing is measured again
_HEAD = ('', 'first s', 'again s', 'CPU s', 'peak MB', 'programs')

Size = tuple[int, int]


def bench_restoring(
  case: Case, *, sizes: str, memory: str | None, pictures: int
) -> dict[str, Any]:
  """Measures how long pictures of some sizes take, and how much memory."""
  cfg = case.recipe.model
  limit = parse_bytes(memory) if memory else None
  wanted = [parse_size(size) for size in sizes.split(',') if size]
  machine = case.announce('restoring')
  found = {}
  for size in wanted:
    name = '{}x{}'.format(*size)
    found[f'{name}, pieces'] = _noted(_by_pieces, cfg, [size] * 2, limit)
    found[f'{name}, whole'] = _noted(_whole, cfg, size)
  if pictures:
    drawn = draw_sizes(pictures)
    side = round(np.mean([width * height for width, height in drawn]) ** 0.5)
    for name, chosen in (
      (f'{pictures} sizes', drawn),
      (f'{pictures} of {side}x{side}', [(side, side)] * pictures),
    ):
      found[name] = _noted(_by_pieces, cfg, chosen, limit)
  show(table(found))
  return {'machine': machine, 'memory': memory, 'found': found}


def _noted(measure: Callable[..., dict], *arguments: Any) -> dict[str, Any]:
  """Measures in a process of its own; notes why if that ended."""
  try:
    return apart(measure, *arguments)
  except (MemoryError, ChildProcessError) as error:
    return {'failure': str(error)}


def draw_sizes(count: int) -> list[Size]:
  """Returns widths and heights of pictures between 0.3 and 4 megapixels."""
  random = np.random.default_rng(0)
  pixels = random.uniform(_LEAST, _MOST, count)
  ratios = random.uniform(0.5, 2, count)
  widths = np.sqrt(pixels * ratios).astype(int)
  heights = (pixels // widths).astype(int)
  return list(zip(widths.tolist(), heights.tolist(), strict=True))


def table(found: dict[str, dict[str, Any]]) -> Table:
  """Returns the measurements of `bench_restoring` as a table."""
  rows = []
  for name, one in found.items():
    if 'failure' in one:
      rows.append((f'{name}: {one["failure"]}', *[None] * 5))
      continue
    times = [one[key] for key in ('first', 'again', 'cpu')]
    cells = ['' if time is None else f'{time:.1f}' for time in times]
    peak, programs = f'{one["peak"] / 1e6:.0f}', str(one['programs'])
    rows.append((name, *cells, peak, programs))
  return Table(
    '',
    _HEAD,
    rows,
    note='first: with compiling the programs that are not kept from before; '
    'again: the rest of the pictures,\nnone if the first one took longer than '
    f'{_LONG} s; CPU: of these, or of the first one.\n'
    'peak: of the whole process.',
  )


def _by_pieces(
  cfg: AnyConfig, sizes: list[Size], memory: int | None
) -> dict[str, Any]:
  """Restores pictures by the engine, one after the other."""
  engine = Engine(cfg, draw_params(cfg, 0), memory=memory)
  try:
    found = _timed(engine, (_picture(size) for size in sizes))
  except ValueError as error:  # the memory is too small
    return {'failure': str(error)}
  return found | {'programs': engine.programs}


def _whole(cfg: AnyConfig, size: Size) -> dict[str, Any]:
  """Restores a picture twice by a program for its size."""
  image = pad(_picture(size)[None], cfg.multiple, 1)
  params = jax.device_put(draw_params(cfg, 0))
  chosen = choice.resolve('auto', jax.local_devices()[:1])
  restore = jax.jit(choice.traced_with(chosen, final_image(cfg)))
  compiling, program = seconds(lambda: restore.lower(params, image).compile())
  needed = planned(program).bytes or 0
  if needed > psutil.virtual_memory().available / 2:
    more = f'{needed / 1e6:.0f} MB, more than half of the free memory'
    return {'failure': f'needs {more}'}
  found = _timed(lambda x: np.asarray(program(params, x)), [image] * 2)
  return found | {'first': found['first'] + compiling, 'programs': 1}


def _timed(function, arguments) -> dict[str, Any]:
  """Returns seconds, and the peak of memory in bytes.

  Seconds are those of the 'first' call, of the others 'again' (None if there
  are none), and of all cores, 'cpu', in the others or in the only one.
  """
  times, cpu = [], []
  for argument in arguments:
    start = time.process_time()
    times.append(seconds(functools.partial(function, argument))[0])
    cpu.append(time.process_time() - start)
    if times[0] > _LONG:
      break
  again = sum(times[1:]) if len(times) > 1 else None
  cores = sum(cpu[1:] or cpu)
  return {'first': times[0], 'again': again, 'cpu': cores, 'peak': most_held()}


def _picture(size: Size) -> np.ndarray:
  width, height = size
  return draw_batch(1, height, width, 0)['rainy'][0]
