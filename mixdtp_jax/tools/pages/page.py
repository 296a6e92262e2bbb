"""Parts of an HTML page that is one file and needs no network.

Every function returns HTML, in which all text that it was given is escaped;
`document` puts the parts together. Images are PNG data URIs, charts inline
SVG. The page follows the reader's light or dark scheme.
"""

import base64
import html
import io
import os
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mixdtp_jax.data.images import to_uint8
from mixdtp_jax.runtime.files import replacing
from mixdtp_jax.tools.pages import chart
from mixdtp_jax.tools.pages.chart import line_chart

__all__ = [
  'document', 'line_chart', 'paragraph', 'picture', 'section', 'slider',
  'table', 'write_page',
]  # fmt: skip

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
img { display: block; max-width: 100%; height: auto; }
.enlarged { image-rendering: pixelated; }
.slider { position: relative; overflow: hidden; --split: 50%; }
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
    f'<title>{title}</title>\n<style>{_STYLE}{chart.STYLE}</style>\n</head>\n'
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


def _img(label: str, image: np.ndarray) -> str:
  """Pixels as they are; a small image is enlarged to be seen."""
  pixels = to_uint8(image)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, format='PNG')
  data = base64.b64encode(file.getvalue()).decode()
  height, width, _ = pixels.shape
  times = max(1, round(256 / width))
  kind = ' class="enlarged"' if times > 1 else ''
  return (
    f'<img{kind} alt="{html.escape(label)}" width="{times * width}" '
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
    'autocomplete="off" '
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
