"""Line charts as SVG, by matplotlib: inside a page, or as a file."""

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import cycler
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

# Colours of Okabe and Ito, which differ for every kind of colour vision,
# without the yellow, which is hard to see on white. Then they repeat, dashed.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
_INK, _GRID = '#1b1b1b', '#d9d9d9'  # a page replaces them by its own
_STYLE: Any = {
  'axes.edgecolor': _GRID,
  'axes.grid': True,
  'axes.labelcolor': _INK,
  'axes.prop_cycle': cycler.cycler(linestyle=['-', '--', ':'])
  * cycler.cycler(color=_COLOURS),
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlelocation': 'left',
  'axes.titleweight': 'bold',
  'grid.color': _GRID,
  'legend.frameon': False,
  'svg.fonttype': 'none',  # text stays text
  'svg.hashsalt': 'mixdtp_jax',  # equal charts are equal files
  'text.color': _INK,
  'text.parse_math': False,
  'xtick.color': _INK,
  'ytick.color': _INK,
}
_WIDTH, _HEIGHT = 7.2, 3.8  # inches of a chart without its legend
_LEGEND = 0.25  # inches of a line of the legend
_MANY = 50  # points from which markers are small


class Chart(NamedTuple):
  """Lines with a marker at each point."""

  title: str
  x_label: str  # with its unit, as the next one
  y_label: str
  # (name, xs, ys) of each line. Points that are not finite, or not positive on
  # logarithmic axes, are left out.
  series: Sequence[tuple[str, Sequence[float], Sequence[float]]]
  log: bool = False  # whether both axes are logarithmic


def svg_file(charts: Sequence[Chart]) -> str:
  """Returns an SVG file of charts on white, two in a row."""
  columns = min(len(charts), 2)
  rows = math.ceil(len(charts) / columns)
  height = _HEIGHT + _LEGEND * max(len(chart.series) for chart in charts)
  text = io.StringIO()
  with mpl.rc_context(_STYLE), warnings.catch_warnings():
    # The reader's fonts draw the text, whatever matplotlib's fonts lack.
    warnings.filterwarnings('ignore', 'Glyph')
    size = columns * _WIDTH, rows * height
    figure = Figure(size, layout='constrained')
    for number, chart in enumerate(charts, start=1):
      _draw(figure.add_subplot(rows, columns, number), chart)
    none = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    figure.savefig(text, format='svg', metadata=none)
  return text.getvalue()


def svg_in_page(chart: Chart) -> str:
  """Returns a chart as an SVG element in the colours of its page."""
  svg = svg_file([chart])
  svg = svg[svg.index('<svg') :]
  # Charts of one page would have parts of the same name, which none refers to.
  svg = re.sub(r' id="[\w.]+_\d+"', '', svg)
  for colour, name in ((_INK, 'ink'), (_GRID, 'faint'), ('#ffffff', 'paper')):
    svg = svg.replace(colour, f'var(--{name})')
  return svg


def _draw(axes: Axes, chart: Chart) -> None:
  axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
  if chart.log:
    axes.set_xscale('log', nonpositive='mask')
    axes.set_yscale('log', nonpositive='mask')
  for axis in (axes.xaxis, axes.yaxis):
    if chart.log:
      axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter('{x:,.10g}')
  for name, xs, ys in chart.series:
    size = 5 if len(xs) < _MANY else 2
    axes.plot(xs, ys, marker='o', markersize=size, label=name)
  if chart.series:
    axes.legend(loc='upper left', bbox_to_anchor=(0, -0.15))
