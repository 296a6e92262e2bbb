"""bench growth: how time and memory grow with pixels, batch and devices.

Every point is measured in a process of its own, whose memory no earlier point
has touched. CPU devices share the machine's cores: they show what sharing a
batch costs, no speed-up.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from absl import logging

from mixdtp_jax.runtime.files import replacing
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench import case, subprocesses
from mixdtp_jax.tools.pages.chart import Chart, svg_file

Options = dict[str, Any]


@dataclasses.dataclass
class Sweep:
  """Measurements along one axis.

  Attributes:
    name: what is measured.
    axis: meaning of x: pixels, images or devices.
    points: for each x the 'seconds' of warm runs, and the peak 'memory' in
      bytes, None if unknown, with its 'source'.
    failure: why points are missing at the end; '' if none is.
  """

  name: str
  axis: str
  points: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
  failure: str = ''

  def column(self, quantity: str) -> dict[int, float]:
    """Returns 'time' in seconds (medians) or 'memory' in bytes, by x."""
    if quantity == 'time':
      return {x: float(np.median(p['seconds'])) for x, p in self.points.items()}
    return {x: p['memory'] for x, p in self.points.items() if p['memory']}


def bench_growth(
  *,
  config: str | None,
  sizes: str,
  batches: str,
  devices: str,
  crop: int,
  overrides: Sequence[str],
  repeats: int,
  out: str | None,
  plot: str | None,
) -> None:
  """Measures inference by pixels and batch, and training by batch and devices.

  The arguments are the options of the command.

  Raises:
    FileNotFoundError, ValueError: a setting does not fit.
    ChildProcessError: a measurement failed.
  """
  recipe, cfg = case.load_recipe(config, overrides)
  case.check_crop(cfg, crop)
  given = {'sizes': sizes, 'batches': batches, 'devices': devices}
  axes = [case.parse_numbers(name, text) for name, text in given.items()]
  machine = case.announce(f'growth; {case.describe(cfg)}')
  common = {'config': config, 'repeats': repeats}
  sweeps = [
    _measure(Sweep(name, axis), benchmark, runs, common, overrides)
    for name, axis, benchmark, runs in _plan(*axes, crop)
  ]
  show(*map(table, sweeps))
  if plot is not None:
    with replacing(plot) as temporary, open(temporary, 'w') as file:
      file.write(svg_file(charts(sweeps)))
  case.write(
    out,
    recipe,
    what='growth',
    machine=machine,
    crop=crop,
    sweeps=[_content(sweep) for sweep in sweeps],
  )


def _plan(sizes, batches, devices, crop):
  """Yields name, axis, benchmark, and the options of each x, of each sweep."""
  shared = math.lcm(*devices)
  pixels = f'{crop}x{crop} pixels'
  restoring = {side * side: {'size': side} for side in sizes}
  yield 'inference, one image', 'pixels', 'inference', restoring
  restoring = {n: {'size': crop, 'batch': n} for n in batches}
  yield f'inference, {pixels}', 'images', 'inference', restoring
  updates = {n: {'crop': crop, 'batch': n} for n in batches}
  yield f'training, {pixels}', 'images', 'training', updates
  updates = {n: {'crop': crop, 'batch': shared, 'devices': n} for n in devices}
  yield f'training, {shared} x {pixels}', 'devices', 'training', updates


def _measure(
  sweep: Sweep,
  benchmark: str,
  runs: dict[int, Options],
  common: Options,
  overrides: Sequence[str],
) -> Sweep:
  for x, options in runs.items():
    try:
      found = subprocesses.bench(benchmark, common | options, overrides)['jax']
    except MemoryError as error:
      sweep.failure = f'{x} {sweep.axis}: {error}'
      return sweep
    memory = found['memory']
    sweep.points[x] = {
      'seconds': found['alone'],
      'memory': memory['bytes'],
      'source': memory['source'],
    }
    seconds = sweep.column('time')[x]
    logging.info('%s, %d %s: %.4g s', sweep.name, x, sweep.axis, seconds)
  return sweep


def slope(points: Iterable[tuple[float, float]]) -> float:
  """Returns the power with which y grows with x; NaN for less than two points.

  It is the slope of the line through (log x, log y).
  """
  logarithms = np.log([*points])
  if len(logarithms) < 2:
    return math.nan
  return float(np.polyfit(*logarithms.T, 1)[0])


def table(sweep: Sweep) -> Table:
  """Returns each point, and the power of growth since the one before."""
  time, memory = sweep.column('time'), sweep.column('memory')
  xs = list(sweep.points)
  rows = [
    (
      f'{x:,}',
      f'{time[x]:.4g}',
      _power(time, before, x),
      f'{memory[x] / 2**20:.0f}' if x in memory else None,
      _power(memory, before, x),
    )
    for before, x in zip([None, *xs], xs, strict=False)
  ]
  notes = [sweep.failure] if sweep.failure else []
  for name, column in (('time', time), ('memory', memory)):
    if len(column) > 1:
      power = slope(column.items())
      notes.append(f'{name} as {sweep.axis} to the power {power:.2f}')
  head = (sweep.axis, 's', 'power', 'MiB', 'power')
  return Table(sweep.name, head, rows, '\n'.join(notes))


def _power(column: dict[int, float], before: int | None, x: int) -> str | None:
  if before not in column or x not in column:
    return None
  return f'{slope([(before, column[before]), (x, column[x])]):.2f}'


def charts(sweeps: list[Sweep]) -> list[Chart]:
  """Returns charts of time and memory along each axis.

  Those of pixels have logarithmic axes and a line that is linear in them.
  """
  made = []
  for axis in ('pixels', 'images', 'devices'):
    for quantity, unit, scale in (('time', 's', 1), ('memory', 'MiB', 2**20)):
      series = []
      for sweep in sweeps:
        if sweep.axis == axis:
          column = sweep.column(quantity)
          xs, ys = [*column], [y / scale for y in column.values()]
          series.append((sweep.name, xs, ys))
          if axis == 'pixels' and xs:
            linear = [ys[-1] * x / xs[-1] for x in xs]
            series.append(('linear in pixels', xs, linear))
      title, log = f'{quantity.capitalize()} against {axis}', axis == 'pixels'
      made.append(Chart(title, axis, unit, series, log_x=log, log_y=log))
  return made


def _content(sweep: Sweep) -> dict[str, Any]:
  powers = {q: slope(sweep.column(q).items()) for q in ('time', 'memory')}
  points = [{'x': x, **point} for x, point in sweep.points.items()]
  return dataclasses.asdict(sweep) | {'points': points, 'powers': powers}
