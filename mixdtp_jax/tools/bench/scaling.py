"""bench growth: how time and memory grow with pixels, batch and devices.

Every point is measured in a process of its own, which has no history that
could be taken for, or serve, a point's memory. CPU devices share the machine's
cores: what they show is what sharing a batch costs, no speed-up.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from absl import logging

from mixdtp_jax.measure import machine
from mixdtp_jax.runtime.console import set_up_logging
from mixdtp_jax.runtime.files import dump_json, replacing
from mixdtp_jax.tools.bench import children, subject
from mixdtp_jax.tools.pages.chart import Chart, svg_file


@dataclasses.dataclass(frozen=True)
class Point:
  """One measurement.

  Attributes:
    x: pixels, images or devices.
    seconds: of JAX's warm runs.
    memory: peak in bytes; None where it cannot be known.
    source: what that was read from.
  """

  x: int
  seconds: tuple[float, ...]
  memory: int | None
  source: str

  @property
  def median(self) -> float:
    """Of the seconds."""
    return float(np.median(self.seconds))


@dataclasses.dataclass(frozen=True)
class Sweep:
  """Points along one axis.

  Attributes:
    name: of what is measured.
    axis: what x is.
    points: by x.
    failure: why there are no points beyond; '' where all are there.
  """

  name: str
  axis: str
  points: tuple[Point, ...]
  failure: str = ''


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

  Args:
    config: a file as in configs/, whose network, loss and optimizer they are;
      None is the default.
    sizes: sides in pixels of one image that is restored, 'A,B,...'.
    batches: images of `crop` pixels, restored and trained on.
    devices: that share an update of as many images as all these numbers
      divide. On a machine without accelerator they are made of its cores.
    crop: side of those images in pixels.
    overrides: KNOB=VALUE, in the place of the config's.
    repeats: timed runs of each.
    out: JSON file to write; None writes none.
    plot: SVG file to write; None writes none.

  Raises:
    FileNotFoundError, ValueError: a setting does not fit.
    ChildProcessError: a measurement failed.
  """
  recipe, cfg = subject.load_recipe(config, overrides)
  subject.check_crop(cfg, crop)
  given = {'sizes': sizes, 'batches': batches, 'devices': devices}
  axes = [_numbers(name, text) for name, text in given.items()]
  set_up_logging()
  at = machine.describe()
  print(f'growth; {subject.describe(cfg)}\n{machine.one_line(at)}', flush=True)
  common = {'config': config, 'repeats': repeats}
  sweeps = _sweeps(*axes, crop, common, overrides)
  for sweep in sweeps:
    print('\n' + format_sweep(sweep))
  if plot is not None:
    with replacing(plot) as temporary, open(temporary, 'w') as file:
      file.write(svg_file(charts(sweeps)))
  if out is not None:
    content = {
      'what': 'growth',
      'machine': at,
      'crop': crop,
      'sweeps': [_content(sweep) for sweep in sweeps],
      'config': recipe.to_dict(),
    }
    dump_json(content, out)


def _numbers(name: str, text: str) -> list[int]:
  numbers = text.split(',')
  if not all(number.isdecimal() and int(number) for number in numbers):
    raise ValueError(f'--{name} {text}: needs numbers of at least 1, as 1,2,4')
  return sorted({int(number) for number in numbers})


def _sweeps(sizes, batches, devices, crop, common, overrides) -> list[Sweep]:
  sweep = functools.partial(_sweep, overrides=overrides)
  shared = math.lcm(*devices)
  size = {'size': crop}
  return [
    sweep(
      'inference, one image',
      'pixels',
      'inference',
      ((s * s, common | {'size': s}) for s in sizes),
    ),
    sweep(
      f'inference, {crop}x{crop} pixels',
      'images',
      'inference',
      ((b, common | size | {'batch': b}) for b in batches),
    ),
    sweep(
      f'training, {crop}x{crop} pixels',
      'images',
      'training',
      ((b, common | {'crop': crop, 'batch': b}) for b in batches),
    ),
    sweep(
      f'training, {shared} x {crop}x{crop} pixels',
      'devices',
      'training',
      (
        (n, common | {'crop': crop, 'batch': shared, 'devices': n})
        for n in devices
      ),
    ),
  ]


def _sweep(
  name: str,
  axis: str,
  what: str,
  runs: Iterable[tuple[int, dict[str, Any]]],
  overrides: Sequence[str],
) -> Sweep:
  points = []
  for x, flags in runs:
    try:
      found = children.bench(what, flags, overrides)['jax']
    except MemoryError as error:
      return Sweep(name, axis, tuple(points), f'{x} {axis}: {error}')
    point = Point(x, tuple(found['alone']), *found['memory'].values())
    logging.info('%s, %d %s: %.4g s', name, x, axis, point.median)
    points.append(point)
  return Sweep(name, axis, tuple(points))


def slope(xs: Iterable[float], ys: Iterable[float]) -> float:
  """Of the line through (log x, log y): the power with which y grows.

  NaN of fewer than two points.
  """
  points = np.log(list(zip(xs, ys, strict=True)))
  if len(points) < 2:
    return math.nan
  return float(np.polyfit(*points.T, 1)[0])


def _columns(sweep: Sweep) -> dict[str, tuple[list[int], list[float]]]:
  """(xs, ys) of time and of memory, where it is known."""
  known = [p for p in sweep.points if p.memory]
  return {
    'time': ([p.x for p in sweep.points], [p.median for p in sweep.points]),
    'memory': ([p.x for p in known], [p.memory for p in known]),
  }


def format_sweep(sweep: Sweep) -> str:
  """A table: each point, and the power of growth since the one before."""
  head = f'{sweep.axis:>12}{"s":>12}{"power":>8}{"MiB":>10}{"power":>8}'
  lines = [sweep.name, head]
  before = None
  for point in sweep.points:
    powers = (math.nan, math.nan)
    if before is not None:
      xs = before.x, point.x
      powers = (
        slope(xs, (before.median, point.median)),
        slope(xs, (before.memory or math.nan, point.memory or math.nan)),
      )
    held = '-' if point.memory is None else f'{point.memory / 2**20:.0f}'
    time, memory = ('' if math.isnan(p) else f'{p:.2f}' for p in powers)
    lines.append(
      f'{point.x:>12,}{point.median:>12.4g}{time:>8}{held:>10}{memory:>8}'
    )
    before = point
  if sweep.failure:
    lines.append(sweep.failure)
  fits = (
    f'{name} as {sweep.axis} to the power {slope(*column):.2f}'
    for name, column in _columns(sweep).items()
    if len(column[0]) > 1
  )
  return '\n'.join([*lines, *fits])


def charts(sweeps: list[Sweep]) -> list[Chart]:
  """Time and memory of each axis; the first beside what is linear."""
  first = sweeps[0]
  made = []
  for name, unit, scale in (('time', 's', 1), ('memory', 'MiB', 2**20)):
    xs, ys = _columns(first)[name]
    ys = [y / scale for y in ys]
    linear = [ys[-1] * x / xs[-1] for x in xs] if xs else []
    series = [(first.name, xs, ys), ('linear in pixels', xs, linear)]
    title = f'{name.capitalize()} against pixels'
    made.append(Chart(title, 'pixels', unit, series, log_x=True, log_y=True))
  for axis in ('images', 'devices'):
    found = [sweep for sweep in sweeps if sweep.axis == axis]
    for name, unit, scale in (('time', 's', 1), ('memory', 'MiB', 2**20)):
      series = []
      for sweep in found:
        xs, ys = _columns(sweep)[name]
        series.append((sweep.name, xs, [y / scale for y in ys]))
      title = f'{name.capitalize()} against {axis}'
      made.append(Chart(title, axis, unit, series))
  return made


def _content(sweep: Sweep) -> dict[str, Any]:
  powers = {name: slope(*xy) for name, xy in _columns(sweep).items()}
  return dataclasses.asdict(sweep) | {'powers': powers}
