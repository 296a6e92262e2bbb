"""bench growth: how time and memory grow with pixels, batch and devices.

Every point is measured in a process of its own, whose memory no earlier point
has touched. CPU devices share the machine's cores: they show what sharing a
batch costs, no speed-up.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from mixdtp_jax.runtime.files import replacing
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench import subprocesses
from mixdtp_jax.tools.bench.case import Case, parse_number
from mixdtp_jax.tools.pages.chart import Chart, svg_file

_UNITS = {'time': ('s', 1), 'memory': ('MiB', 2**20)}


@dataclasses.dataclass
class Sweep:
  """Measurements along one axis."""

  name: str  # what is measured
  axis: str  # meaning of x: pixels, images or devices
  # For each x the 'seconds' of warm runs, and the peak 'memory' in bytes, None
  # if unknown, with its 'source'.
  points: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
  failure: str = ''  # why points are missing at the end

  def column(self, quantity: str) -> dict[int, float]:
    """Returns 'time' in seconds (medians) or 'memory' in bytes, by x."""
    if quantity == 'time':
      return {x: float(np.median(p['seconds'])) for x, p in self.points.items()}
    return {x: p['memory'] for x, p in self.points.items() if p['memory']}


def bench_growth(
  case: Case,
  *,
  sizes: str,
  batches: str,
  devices: str,
  crop: int,
  repeats: int,
  plot: str | None,
) -> dict[str, Any]:
  """Measures inference by pixels, and both by batch, training by devices."""
  case.check_crop(crop)
  given = {'sizes': sizes, 'batches': batches, 'devices': devices}
  axes = {
    name: sorted({parse_number(name, n) for n in text.split(',')})
    for name, text in given.items()
  }
  machine = case.announce('growth')
  sweeps = []
  for sweep, benchmark, runs in _plan(**axes, crop=crop):
    for x, options in runs.items():
      options['repeats'] = repeats
      try:
        found = subprocesses.bench(benchmark, case.words, options)
      except MemoryError as error:
        sweep.failure = f'{x} {sweep.axis}: {error}'
        break
      memory, seconds = found['jax']['memory'], found['jax']['alone']
      sweep.points[x] = {
        'seconds': seconds, 'memory': memory['bytes'],
        'source': memory['source'],
      }  # fmt: skip
      median = np.median(seconds)
      logging.info('%s, %d %s: %.4g s', sweep.name, x, sweep.axis, median)
    sweeps.append(sweep)
  show(*map(table, sweeps))
  if plot is not None:
    with replacing(plot) as temporary:
      pathlib.Path(temporary).write_text(svg_file(charts(sweeps)))
  contents = [_content(sweep) for sweep in sweeps]
  return {'machine': machine, 'crop': crop, 'sweeps': contents}


def _plan(
  sizes: list[int], batches: list[int], devices: list[int], crop: int
) -> Iterator[tuple[Sweep, str, dict[int, dict[str, int]]]]:
  """Yields sweeps, the benchmark of each, and its options for each x."""
  shared = math.lcm(*devices)
  pixels = f'{crop}x{crop} pixels'
  restoring = {side * side: {'size': side} for side in sizes}
  yield Sweep('inference, one image', 'pixels'), 'inference', restoring
  restoring = {n: {'size': crop, 'batch': n} for n in batches}
  yield Sweep(f'inference, {pixels}', 'images'), 'inference', restoring
  updates = {n: {'crop': crop, 'batch': n} for n in batches}
  yield Sweep(f'training, {pixels}', 'images'), 'training', updates
  updates = {n: {'crop': crop, 'batch': shared, 'devices': n} for n in devices}
  name = f'training, {shared} x {pixels}'
  yield Sweep(name, 'devices'), 'training', updates


def slope(points: Iterable[tuple[float, float]]) -> float:
  """Returns the slope of the line through (log x, log y): the power of x."""
  logarithms = np.log([*points])
  if len(logarithms) < 2:
    return math.nan
  xs, ys = logarithms.T
  return float(np.polyfit(xs, ys, 1)[0])


def table(sweep: Sweep) -> Table:
  """Returns each point, and the power of growth since the one before."""
  columns = {quantity: sweep.column(quantity) for quantity in _UNITS}
  time, memory = columns['time'], columns['memory']
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
  notes += [
    f'{name} as {sweep.axis} to the power {slope(column.items()):.2f}'
    for name, column in columns.items()
    if len(column) > 1
  ]
  head = (sweep.axis, 's', 'power', 'MiB', 'power')
  return Table(sweep.name, head, rows, '\n'.join(notes))


def _power(
  column: Mapping[int, float], before: int | None, x: int
) -> str | None:
  if before is None or before not in column or x not in column:
    return None
  return f'{slope([(before, column[before]), (x, column[x])]):.2f}'


def charts(sweeps: Sequence[Sweep]) -> list[Chart]:
  """Returns charts of time and memory along each axis.

  Those of pixels have logarithmic axes and a line that is linear in them.
  """
  made = []
  for axis in ('pixels', 'images', 'devices'):
    for quantity, (unit, scale) in _UNITS.items():
      series = []
      for sweep in (sweep for sweep in sweeps if sweep.axis == axis):
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
  powers = {q: slope(sweep.column(q).items()) for q in _UNITS}
  points = [{'x': x, **point} for x, point in sweep.points.items()]
  return dataclasses.asdict(sweep) | {'points': points, 'powers': powers}
