"""Parts of an HTML page that is one file and needs no network.

Every function returns HTML, in which all text that it was given is escaped;
`document` puts the parts together. Images are PNG data URIs, charts inline
SVG. The page follows the reader's light or dark scheme.
"""

import base64
import dataclasses
import html
import io
import math
import os
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mixdtp_jax.report import replacing, to_uint8

# Nothing may be fetched: the browser itself holds the page to that.
_POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "script-src 'unsafe-inline'"
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff;
  --faint: #d9d9d9; --quiet: #5c5c5c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #17191c; --faint: #3b3f45;
    --quiet: #a3a8ae; } }
body { margin: 0; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: auto; padding: 1rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--faint); }
.number { text-align: right; white-space: nowrap; }
figure { display: inline-block; max-width: 100%; margin: 0 1rem 1rem 0;
  vertical-align: top; }
figcaption { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto;
  image-rendering: pixelated; }
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
.slider { position: relative; --split: 50%; }
.slider img + img { position: absolute; inset: 0;
  clip-path: inset(0 0 0 var(--split)); }
.divider { position: absolute; top: 0; bottom: 0; left: var(--split);
  width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 0 1px #000; pointer-events: none; }
/* As far out on both sides as half its thumb: the thumb is on the divider. */
.slider input { position: absolute; top: 0; left: -20px; margin: 0;
  width: calc(100% + 40px); height: 100%; opacity: 0; cursor: ew-resize;
  appearance: none; touch-action: pan-y; }
.slider input::-webkit-slider-thumb { appearance: none; width: 40px;
  height: 100vh; }
.slider input::-moz-range-thumb { width: 40px; height: 100vh; border: 0; }
.slider input:focus-visible + .divider { box-shadow: 0 0 0 3px #0072b2; }
.sides { display: flex; justify-content: space-between; gap: 1rem; }
"""


def document(title: str, *parts: str) -> str:
  """The whole page: a title above the parts."""
  title = html.escape(title)
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n'
    f'<body>\n<main>\n<h1>{title}</h1>\n{"".join(parts)}</main>\n</body>\n'
    '</html>\n'
  )


def section(heading: str, *parts: str) -> str:
  """Parts under a heading."""
  content = ''.join(parts)
  return f'<section>\n<h2>{html.escape(heading)}</h2>\n{content}</section>\n'


def paragraph(text: str) -> str:
  """A paragraph of plain text."""
  return f'<p>{html.escape(text)}</p>\n'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table whose first column is text; columns of numbers are aligned right.

  Args:
    head: the columns' names.
    rows: cells, as many in each row as in the head; a column is of numbers
      where each cell begins with one, or is '' or '-'.

  Raises:
    ValueError: a row is longer or shorter than the head.
  """
  columns = list(zip(head, *rows, strict=True))
  number = re.compile(r'([-+±]?(\d|\.\d|inf|nan)|-?$)')
  numeric = [
    i > 0 and all(map(number.match, cells))
    for i, (_, *cells) in enumerate(columns)
  ]

  def line(tag: str, cells: Sequence[str]) -> str:
    cells = (
      f'<{tag}{" class=number" * right}>{html.escape(cell)}</{tag}>'
      for cell, right in zip(cells, numeric, strict=True)
    )
    return f'<tr>{"".join(cells)}</tr>\n'

  body = ''.join(line('td', row) for row in rows)
  return (
    f'<div class="wide"><table>\n<thead>{line("th", head)}</thead>\n'
    f'<tbody>\n{body}</tbody>\n</table></div>\n'
  )


_WIDTH, _HEIGHT = 720, 380  # of a chart's drawing, CSS pixels before scaling
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 700, 30, 330  # the axes in it
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


def line_chart(
  title: str,
  x_label: str,
  y_label: str,
  series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
  *,
  log_y: bool = False,
) -> str:
  """Lines with a marker at each point, which tells its values.

  Args:
    title: above the chart.
    x_label: what x is, with its unit.
    y_label: what y is, with its unit.
    series: (name, xs, ys) of each line. Points that are not finite, or with
      `log_y` not positive, are left out.
    log_y: the y axis is logarithmic.

  Raises:
    ValueError: a series has more xs than ys, or fewer.
  """
  lines = [
    (
      name,
      [
        (float(x), float(y))
        for x, y in zip(xs, ys, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y)
      ],
    )
    for name, xs, ys in series
  ]
  points = [point for _, line in lines for point in line]
  if points:
    xs, ys = zip(*points, strict=True)
    x_axis = _Axis(_round_ticks(min(xs), max(xs)), log=False)
    ticks = _log_ticks if log_y else _round_ticks
    y_axis = _Axis(ticks(min(ys), max(ys)), log=log_y)
    drawing = _axes(x_axis, y_axis, x_label, y_label) + ''.join(
      _line(i, name, line, x_axis, y_axis)
      for i, (name, line) in enumerate(lines)
    )
  else:
    drawing = _text(_WIDTH / 2, _HEIGHT / 2, 'no points to show', 'middle')
  label = html.escape(title)
  legend = ''.join(_legend_entry(i, name) for i, (name, _) in enumerate(lines))
  return (
    f'<figure class="chart"><figcaption>{label}</figcaption>\n'
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">\n'
    f'{drawing}</svg>\n<ul class="legend">\n{legend}</ul></figure>\n'
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


def _legend_entry(index: int, name: str) -> str:
  return (
    f'<li style="{_look(index)}"><svg width="30" height="10">'
    '<line class="line" x1="0" y1="5" x2="30" y2="5"/>'
    f'<circle cx="15" cy="5" r="3.5"/></svg> '
    f'<span>{html.escape(name)}</span></li>\n'
  )


def _look(index: int) -> str:
  dash = _DASHES[index // len(_COLOURS) % len(_DASHES)]
  return f'color:{_COLOURS[index % len(_COLOURS)]};stroke-dasharray:{dash}'


def _img(label: str, image: np.ndarray) -> str:
  """Pixels as they are; a small image is enlarged to be seen."""
  pixels = to_uint8(image)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format='PNG')
  data = base64.b64encode(file.getvalue()).decode()
  height, width, _ = pixels.shape
  times = max(1, round(256 / width))
  return (
    f'<img alt="{html.escape(label)}" width="{times * width}" '
    f'height="{times * height}" src="data:image/png;base64,{data}">'
  )


def picture(label: str, image: np.ndarray) -> str:
  """An image (H, W, 3), uint8 or float in [0, 1], above its label.

  Raises:
    ValueError: see `report.to_uint8`.
  """
  return (
    f'<figure>{_img(label, image)}'
    f'<figcaption>{html.escape(label)}</figcaption></figure>\n'
  )


def slider(
  before_label: str, before: np.ndarray, after_label: str, after: np.ndarray
) -> str:
  """Two images (H, W, 3) as of `picture` in one place, with a divider.

  Left of the divider is `before`, right of it `after`. It follows the mouse,
  a finger, and the arrow keys.

  Raises:
    ValueError: the images differ in shape; see also `report.to_uint8`.
  """
  if before.shape != after.shape:
    raise ValueError(
      f'slider of {before_label!r} {before.shape} and {after_label!r} '
      f'{after.shape}: both images need one shape'
    )
  left, right = html.escape(before_label), html.escape(after_label)
  return (
    '<figure><div class="slider">'
    f'{_img(before_label, before)}{_img(after_label, after)}'
    '<input type="range" min="0" max="100" value="50" step="0.5" '
    f'aria-label="divider between {left} and {right}" '
    "oninput=\"this.parentNode.style.setProperty('--split', "
    'this.value + \'%\')"><span class="divider"></span></div>'
    f'<figcaption class="sides"><span>◀ {left}</span><span>{right} ▶</span>'
    '</figcaption></figure>\n'
  )


def write_page(html: str, path: str | os.PathLike) -> None:
  """Writes a page as UTF-8; an error leaves what was there before."""
  with (
    replacing(path) as temporary,
    open(temporary, 'w', encoding='utf-8') as file,
  ):
    file.write(html)
