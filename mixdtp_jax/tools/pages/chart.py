"""Line charts as SVG: inline for the pages of page.py, or a file."""

import dataclasses
import html
import math
from collections.abc import Sequence
from typing import NamedTuple

# Of the page that a chart is in; --ink, --quiet and --faint are the page's.
STYLE = """\
.chart { display: block; margin: 1.5rem 0; }
.chart figcaption { color: var(--ink); font-size: 1rem; font-weight: 600; }
.chart > svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--quiet); font-size: 13px; }
.grid { stroke: var(--faint); }
.line { fill: none; stroke: currentColor; stroke-width: 2;
  stroke-linejoin: round; }
circle { fill: currentColor; }
circle:hover { stroke: currentColor; stroke-width: 6; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.5rem; margin: 0;
  padding: 0 0 0 70px; list-style: none; font-size: .9rem; }
.legend span { color: var(--ink); overflow-wrap: anywhere; }
"""

_WIDTH, _HEIGHT = 720, 380  # of a chart's drawing, CSS pixels before scaling
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 680, 30, 330  # the axes in it
# In a file: height of a title, of a legend's line, and width of a column.
_TITLE, _ROW, _COLUMN = 30, 24, 760
# A file is on white, and is made smaller to fit a page's width.
_FILE_STYLE = """\
svg text { font-size: 17px; font-family: system-ui, sans-serif; }
"""
_FILE_COLOURS = {'ink': '#1b1b1b', 'quiet': '#5c5c5c', 'faint': '#d9d9d9'}
_MANY = 100  # from so many points on, markers are small
# Okabe and Ito's colours for all kinds of colour vision, without the yellow
# that is lost on white; their black is the ink, which is light on dark paper.
_COLOURS = (
  '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9',
  'var(--ink)',
)  # fmt: skip
_DASHES = ('none', '7 4', '2 3')  # for the series after the last colour


@dataclasses.dataclass(frozen=True)
class _Axis:
  """Values of ascending ticks, and where values lie between them."""

  ticks: list[float]
  log: bool

  def place(self, value: float) -> float:
    """0 at the first tick, 1 at the last."""
    scale = math.log if self.log else float
    low, high = scale(self.ticks[0]), scale(self.ticks[-1])
    return (scale(value) - low) / (high - low)


Series = tuple[str, Sequence[float], Sequence[float]]


class Chart(NamedTuple):
  """Lines with a marker at each point, which tells its values.

  Attributes:
    title: above the chart.
    x_label: what x is, with its unit.
    y_label: what y is, with its unit.
    series: (name, xs, ys) of each line. Points that are not finite, or on a
      logarithmic axis not positive, are left out.
    log_x: the x axis is logarithmic.
    log_y: the y axis is.
  """

  title: str
  x_label: str
  y_label: str
  series: Sequence[Series]
  log_x: bool = False
  log_y: bool = False


def line_chart(
  title: str,
  x_label: str,
  y_label: str,
  series: Sequence[Series],
  *,
  log_y: bool = False,
) -> str:
  """A `Chart` for a page.

  Raises:
    ValueError: a series has more xs than ys, or fewer.
  """
  chart = Chart(title, x_label, y_label, series, log_y=log_y)
  label = html.escape(title)
  legend = ''.join(
    f'<li style="{_look(i)}"><svg width="30" height="10">{_sample(5)}</svg> '
    f'<span>{html.escape(name)}</span></li>\n'
    for i, (name, _, _) in enumerate(series)
  )
  return (
    f'<figure class="chart"><figcaption>{label}</figcaption>\n'
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">\n'
    f'{_drawing(chart)}</svg>\n<ul class="legend">\n{legend}</ul></figure>\n'
  )


def svg_file(charts: Sequence[Chart]) -> str:
  """The content of an SVG file with charts, two in a row.

  Raises:
    ValueError: a series has more xs than ys, or fewer.
  """
  parts, top = [], 0
  for first in range(0, len(charts), 2):
    row = charts[first : first + 2]
    parts += [_in_file(c, i * _COLUMN, top) for i, c in enumerate(row)]
    top += 2 * _TITLE + _HEIGHT + _ROW * max(len(c.series) for c in row)
  width = _COLUMN * min(len(charts), 2)
  text = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" '
    f'width="{width}" height="{top}">\n<style>\n{STYLE}{_FILE_STYLE}</style>\n'
    f'<rect width="100%" height="100%" fill="#fff"/>\n{"".join(parts)}</svg>\n'
  )
  for name, colour in _FILE_COLOURS.items():  # not every viewer knows var()
    text = text.replace(f'var(--{name})', colour)
  return text


def _in_file(chart: Chart, left: float, top: float) -> str:
  legend = ''.join(
    f'<g transform="translate({_LEFT} {_HEIGHT + _ROW * i})">\n'
    f'<g style="{_look(i)}">{_sample(10)}</g>\n'
    f'{_text(38, 15, name, "start")}</g>\n'
    for i, (name, _, _) in enumerate(chart.series)
  )
  return (
    f'<g transform="translate({left} {top})">\n<text x="8" y="20" '
    f'style="fill:var(--ink);font-weight:600">{html.escape(chart.title)}'
    f'</text>\n<g transform="translate(0 {_TITLE})">\n{_drawing(chart)}'
    f'{legend}</g>\n</g>\n'
  )


def _drawing(chart: Chart) -> str:
  """Axes and lines, or that there is nothing to show."""
  lines = [
    (
      name,
      [point for point in zip(xs, ys, strict=True) if _fits(chart, *point)],
    )
    for name, xs, ys in chart.series
  ]
  points = [point for _, line in lines for point in line]
  if not points:
    return _text(_WIDTH / 2, _HEIGHT / 2, 'no points to show', 'middle')
  x_axis, y_axis = (
    _Axis((_log_ticks if log else _round_ticks)(min(v), max(v)), log)
    for v, log in zip(
      zip(*points, strict=True), (chart.log_x, chart.log_y), strict=True
    )
  )
  return _axes(x_axis, y_axis, chart.x_label, chart.y_label) + ''.join(
    _line(i, name, line, x_axis, y_axis) for i, (name, line) in enumerate(lines)
  )


def _fits(chart: Chart, x: float, y: float) -> bool:
  return all(
    math.isfinite(value) and (value > 0 or not log)
    for value, log in ((x, chart.log_x), (y, chart.log_y))
  )


def _round_ticks(low: float, high: float) -> list[float]:
  """Multiples of 1, 2 or 5 times a power of ten, around [low, high]."""
  if high - low <= 1e-9 * max(abs(low), abs(high)):
    margin = abs(low) / 10 or 1
    low, high = low - margin, high + margin
  rough = (high - low) / 5
  power = 10.0 ** math.floor(math.log10(rough))
  step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough)
  # The slack keeps rounding from adding a tick.
  first = math.floor(low / step + 1e-6)
  last = math.ceil(high / step - 1e-6)
  return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
  """Ticks of a logarithmic axis around [low, high]; low is positive."""
  if high < 2 * low:
    return _round_ticks(low, high)
  first = math.floor(math.log10(low))
  last = math.ceil(math.log10(high))
  if last - first > 3:
    every = math.ceil((last - first) / 8)
    return [10.0**k for k in range(first, last + every, every)]
  ticks = [m * 10.0**k for k in range(first, last) for m in (1, 2, 5)]
  ticks.append(10.0**last)
  inside = [i for i, tick in enumerate(ticks) if low <= tick <= high]
  return ticks[max(inside[0] - 1, 0) : inside[-1] + 2]


def _pixel(
  x: float, y: float, x_axis: _Axis, y_axis: _Axis
) -> tuple[float, float]:
  return (
    _LEFT + (_RIGHT - _LEFT) * x_axis.place(x),
    _BOTTOM - (_BOTTOM - _TOP) * y_axis.place(y),
  )


def _text(x: float, y: float, text: str, anchor: str) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
    f'{html.escape(text)}</text>\n'
  )


def _axes(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> str:
  parts = []
  for tick in x_axis.ticks:
    x, _ = _pixel(tick, y_axis.ticks[0], x_axis, y_axis)
    parts.append(
      f'<line class="grid" x1="{x:.1f}" y1="{_BOTTOM}" x2="{x:.1f}" '
      f'y2="{_BOTTOM + 5}"/>'
    )
    parts.append(_text(x, _BOTTOM + 20, f'{tick:,.10g}', 'middle'))
  for tick in y_axis.ticks:
    _, y = _pixel(x_axis.ticks[0], tick, x_axis, y_axis)
    parts.append(
      f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" '
      f'y2="{y:.1f}"/>'
    )
    parts.append(_text(_LEFT - 8, y + 4, f'{tick:,.10g}', 'end'))
  parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 10, x_label, 'middle'))
  parts.append(_text(8, 16, y_label, 'start'))
  return ''.join(parts)


def _line(
  index: int,
  name: str,
  points: list[tuple[float, float]],
  x_axis: _Axis,
  y_axis: _Axis,
) -> str:
  pixels = [_pixel(x, y, x_axis, y_axis) for x, y in points]
  radius = 3.5 if len(points) < _MANY else 1.5
  markers = ''.join(
    f'<circle cx="{left:.2f}" cy="{top:.2f}" r="{radius}"><title>'
    f'{html.escape(name)}: {x:,.10g}, {y:,.6g}</title></circle>\n'
    for (left, top), (x, y) in zip(pixels, points, strict=True)
  )
  path = ' '.join(f'{left:.2f},{top:.2f}' for left, top in pixels)
  return (
    f'<g style="{_look(index)}"><polyline class="line" points="{path}"/>\n'
    f'{markers}</g>\n'
  )


def _sample(middle: float) -> str:
  """A piece of a line with a marker, for the legend."""
  return (
    f'<line class="line" x1="0" y1="{middle}" x2="30" y2="{middle}"/>'
    f'<circle cx="15" cy="{middle}" r="3.5"/>'
  )


def _look(index: int) -> str:
  dash = _DASHES[index // len(_COLOURS) % len(_DASHES)]
  return f'color:{_COLOURS[index % len(_COLOURS)]};stroke-dasharray:{dash}'
