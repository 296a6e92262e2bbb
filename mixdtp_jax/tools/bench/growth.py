"""bench growth: how time and memory grow with pixels, batch and devices.

Every point is measured in a process of its own, whose memory no earlier point
has touched. CPU devices share the machine's cores: they show what sharing a
batch costs, no speed-up.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from mixdtp_jax.runtime.files import replacing
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench.beside_torch import bench_inference, bench_training
from mixdtp_jax.tools.bench.case import Case, apart, parse_number
from mixdtp_jax.tools.pages.chart import Chart, svg_file

_UNITS = {'time': 's', 'memory': 'MiB'}


@dataclasses.dataclass
class Sweep:
  """Measurements along one axis."""

  name: str  # what is measured
  axis: str  # meaning of x: pixels, images or devices
  # Each has its 'x', the 'seconds' of warm runs, and the peak 'memory' in
  # bytes, None if unknown, with its 'source'.
  points: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  failure: str = ''  # why points are missing at the end

  def column(self, quantity: str) -> dict[int, float]:
    """Returns the median 'time' in seconds, or 'memory' in MiB, by x."""
    if quantity == 'time':
      return {p['x']: float(np.median(p['seconds'])) for p in self.points}
    return {p['x']: p['memory'] / 2**20 for p in self.points if p['memory']}


def bench_growth(
  case: Case, *, crop: int, repeats: int, plot: str | None, **axes: str
) -> dict[str, Any]:
  """Measures inference by pixels, and both by batch, training by devices.

  `axes` are the options 'sizes', 'batches' and 'devices'.
  """
  case.check_crop(crop)
  numbers = {
    name: sorted({parse_number(name, n) for n in text.split(',')})
    for name, text in axes.items()
  }
  machine = case.announce('growth')
  sweeps = []
  for sweep, measure, runs in _plan(crop, **numbers):
    for x, options in runs.items():
      cpus = options.get('devices', 0)
      try:
        found = apart(measure, case, cpus=cpus, repeats=repeats, **options)[
          'jax'
        ]
      except MemoryError as error:
        sweep.failure = f'{x} {sweep.axis}: {error}'
        break
      memory = found['memory']
      point = {'x': x, 'seconds': found['alone'], 'memory': memory['bytes']}
      sweep.points.append(point | {'source': memory['source']})
      median = np.median(found['alone'])
      logging.info('%s, %d %s: %.4g s', sweep.name, x, sweep.axis, median)
    sweeps.append(sweep)
  show(*map(table, sweeps))
  if plot is not None:
    with replacing(plot) as temporary:
      pathlib.Path(temporary).write_text(svg_file(charts(sweeps)))
  contents = []
  for sweep in sweeps:
    powers = {q: slope(sweep.column(q).items()) for q in _UNITS}
    contents.append(dataclasses.asdict(sweep) | {'powers': powers})
  return {'machine': machine, 'crop': crop, 'sweeps': contents}


def _plan(
  crop: int, sizes: list[int], batches: list[int], devices: list[int]
) -> Iterator[tuple[Sweep, Callable[..., dict], dict[int, dict[str, Any]]]]:
  """Yields sweeps, the benchmark of each, and its options for each x."""
  pixels, shared = f'{crop}x{crop} pixels', math.lcm(*devices)
  alone = {side * side: {'size': f'{side}', 'batch': '1'} for side in sizes}
  yield Sweep('inference, one image', 'pixels'), bench_inference, alone
  images = {n: {'size': f'{crop}', 'batch': f'{n}'} for n in batches}
  yield Sweep(f'inference, {pixels}', 'images'), bench_inference, images
  crops = {n: {'crop': crop, 'batch': f'{n}'} for n in batches}
  yield Sweep(f'training, {pixels}', 'images'), bench_training, crops
  same = {'crop': crop, 'batch': f'{shared}'}
  split = {n: same | {'devices': n} for n in devices}
  name = f'training, {shared} x {pixels}'
  yield Sweep(name, 'devices'), bench_training, split


def slope(points: Iterable[tuple[float, float]]) -> float:
  """Returns the slope of the line through (log x, log y): the power of x."""
  logarithms = np.log([*points])
  if len(logarithms) < 2:
    return math.nan
  xs, ys = logarithms.T
  return float(np.polyfit(xs, ys, 1)[0])


def table(sweep: Sweep) -> Table:
  """Returns each point, and the power of growth since the one before."""
  xs = [point['x'] for point in sweep.points]
  rows: list[list[str | None]] = [[f'{x:,}'] for x in xs]
  notes = [sweep.failure] if sweep.failure else []
  for quantity, form in (('time', '.4g'), ('memory', '.0f')):
    column = sweep.column(quantity)
    before: int | None = None
    for x, row in zip(xs, rows, strict=True):
      power = None
      if before in column and x in column:
        power = f'{slope((n, column[n]) for n in (before, x)):.2f}'
      row += [f'{column[x]:{form}}' if x in column else None, power]
      before = x
    if len(column) > 1:
      power = f'{slope(column.items()):.2f}'
      notes.append(f'{quantity} as {sweep.axis} to the power {power}')
  head = (sweep.axis, 's', 'power', 'MiB', 'power')
  return Table(sweep.name, head, rows, '\n'.join(notes))


def charts(sweeps: Sequence[Sweep]) -> list[Chart]:
  """Returns charts of time and memory along each axis.

  Those of pixels have logarithmic axes and a line that is linear in them.
  """
  made = []
  for axis in ('pixels', 'images', 'devices'):
    for quantity, unit in _UNITS.items():
      series = []
      for sweep in (sweep for sweep in sweeps if sweep.axis == axis):
        column = sweep.column(quantity)
        xs, ys = [*column], [*column.values()]
        series.append((sweep.name, xs, ys))
        if axis == 'pixels' and xs:
          linear = [ys[-1] * x / xs[-1] for x in xs]
          series.append(('linear in pixels', xs, linear))
      title, log = f'{quantity.capitalize()} against {axis}', axis == 'pixels'
      made.append(Chart(title, axis, unit, series, log))
  return made
