"""HTML pages, each in one file that loads nothing from elsewhere.

Each page has a template of its name in templates/; base.html holds the style
and parts.html what pages share. Jinja2 escapes all text. Images are PNG data
URIs, charts inline SVG. Pages follow the reader's light or dark scheme.
"""

import base64
import os
import pathlib
from typing import Any, NamedTuple

import jinja2
import markupsafe
import numpy as np

from mixdtp_jax.data.images import encode_png, to_uint8
from mixdtp_jax.runtime.files import replacing
from mixdtp_jax.tools.pages.chart import svg_in_page

_TEMPLATES = jinja2.Environment(
  loader=jinja2.PackageLoader('mixdtp_jax.tools.pages'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)
_TEMPLATES.filters['svg'] = lambda chart: markupsafe.Markup(svg_in_page(chart))
_ENLARGED = 256  # CSS pixels, to which the width of small images is enlarged


class Picture(NamedTuple):
  """An image of a page."""

  label: str  # text below the image
  width: int  # on the page, in CSS pixels
  height: int  # likewise
  enlarged: bool  # whether each pixel is shown as a square of several
  source: str  # PNG data URI


def picture(label: str, image: np.ndarray) -> Picture:
  """Returns an image (H, W, 3), uint8 or float in [0, 1], for a page."""
  pixels = to_uint8(image)
  data = base64.b64encode(encode_png(pixels)).decode()
  height, width, _ = pixels.shape
  times = max(1, round(_ENLARGED / width))
  source = f'data:image/png;base64,{data}'
  return Picture(label, times * width, times * height, times > 1, source)


def write_page(template: str, path: str | os.PathLike, **content: Any) -> None:
  """Writes a page as UTF-8; an error leaves an earlier file unchanged.

  `template` is a file in templates/, `content` has the values of its variables;
  jinja2.UndefinedError if one is missing.
  """
  html = _TEMPLATES.get_template(template).render(content)
  with replacing(path) as temporary:
    pathlib.Path(temporary).write_text(html, encoding='utf-8')
