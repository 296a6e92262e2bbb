"""bench restoring: whole pictures by the engine, beside one program for each.

Every measurement has a process of its own, so its peak of memory is its own.
"""

import multiprocessing
import time
from concurrent import futures
from typing import Any

import jax
import numpy as np
import psutil

from mixdtp_jax.measure.memory import planned
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
    found[f'{name}, pieces'] = _apart(_by_pieces, cfg, [size] * 2, limit)
    found[f'{name}, whole'] = _apart(_whole, cfg, size)
  if pictures:
    drawn = draw_sizes(pictures)
    side = round(np.mean([width * height for width, height in drawn]) ** 0.5)
    for name, chosen in (
      (f'{pictures} sizes', drawn),
      (f'{pictures} of {side}x{side}', [(side, side)] * pictures),
    ):
      found[name] = _apart(_by_pieces, cfg, chosen, limit)
  show(table(found))
  return {'machine': machine, 'memory': memory, 'found': found}


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
    cells = [None if time is None else f'{time:.1f}' for time in times]
    peak = f'{one["peak"] / 1e6:.0f}'
    rows.append((name, *cells, peak, str(one['programs'])))
  return Table(
    '',
    _HEAD,
    rows,
    note='first: with compiling the programs that are not kept from before; '
    'again: the rest of the pictures,\nnone if the first one took longer than '
    f'{_LONG} s; CPU: of these, or of the first one.\n'
    'peak: of the whole process.',
  )


def _apart(function, *arguments) -> dict[str, Any]:
  """Returns what a function finds in a process of its own."""
  spawn = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
    try:
      return process.submit(function, *arguments).result()
    except futures.process.BrokenProcessPool as error:
      raise ChildProcessError(
        f'a process for {arguments[1:]} was ended: there may be too little '
        'memory'
      ) from error


def _by_pieces(
  cfg: AnyConfig, sizes: list[Size], memory: int | None
) -> dict[str, Any]:
  """Restores pictures by the engine, one after the other."""
  engine = Engine(cfg, draw_params(cfg, 0), memory=memory)
  try:
    timed = _each(engine, (_picture(size) for size in sizes))
  except ValueError as error:  # the memory is too small
    return {'failure': str(error)}
  return _found(timed, engine.programs)


def _whole(cfg: AnyConfig, size: Size) -> dict[str, Any]:
  """Restores a picture twice by a program for its size."""
  image = pad(_picture(size)[None], cfg.multiple, 1)
  params = jax.device_put(draw_params(cfg, 0))
  start = time.perf_counter()
  chosen = choice.resolve('auto', jax.local_devices()[:1])
  restore = jax.jit(choice.traced_with(chosen, final_image(cfg)))
  program = restore.lower(params, image).compile()
  start = time.perf_counter() - start
  needed = planned(program).bytes or 0
  if needed > psutil.virtual_memory().available / 2:
    more = f'{needed / 1e6:.0f} MB, more than half of what is free'
    return {'failure': f'needs {more}'}
  timed = _each(lambda x: np.asarray(program(params, x)), [image] * 2)
  timed[0] = (timed[0][0] + start, timed[0][1])
  return _found(timed, 1)


def _found(timed, programs) -> dict[str, Any]:
  first, *rest = timed
  return {
    'first': first[0],
    'again': sum(seconds for seconds, _ in rest) if rest else None,
    'cpu': sum(cpu for _, cpu in rest or timed),
    'peak': most_held(),
    'programs': programs,
  }


def _each(function, arguments) -> list[tuple[float, float]]:
  """Returns the seconds of each call, and those of all cores together."""
  timed = []
  for argument in arguments:
    start, cpu = time.perf_counter(), time.process_time()
    function(argument)
    timed.append((time.perf_counter() - start, time.process_time() - cpu))
    if timed[0][0] > _LONG:
      break
  return timed


def _picture(size: Size) -> np.ndarray:
  width, height = size
  return draw_batch(1, height, width, 0)['rainy'][0]
