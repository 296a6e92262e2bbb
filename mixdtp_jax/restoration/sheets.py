"""Labelled images side by side."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixdtp_jax.data.images import to_uint8
from mixdtp_jax.restoration.pictures import as_image

GAP = 8  # pixels between panels
_LONGEST = 1600  # side of a panel before/after, in pixels


def side_by_side(images: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
  """Draws labelled images in one row, (H', W', 3) uint8 on white.

  Heights may differ; the images are as for `write_png`. ValueError if there are
  none, or one is not (H, W, 3).
  """
  if not images:
    raise ValueError('no images to put side by side')
  panels = [(label, to_uint8(image)) for label, image in images]
  tallest = max(image.shape[0] for _, image in panels)
  font = ImageFont.load_default(size=max(12, tallest // 20))
  boxes = [font.getbbox(label) for label, _ in panels]
  strip = round(max(box[3] for box in boxes)) + GAP
  widths = [
    max(image.shape[1], round(box[2]))
    for (_, image), box in zip(panels, boxes, strict=True)
  ]
  size = (sum(widths) + GAP * (len(panels) - 1), strip + tallest)
  canvas = Image.new('RGB', size, 'white')
  draw = ImageDraw.Draw(canvas)
  left = 0
  for (label, image), width in zip(panels, widths, strict=True):
    draw.text((left, GAP // 2), label, fill='black', font=font)
    canvas.paste(Image.fromarray(image), (left, strip))
    left += width + GAP
  return np.asarray(canvas)


def small_rgb(pixels: np.ndarray) -> np.ndarray:
  """Returns a picture for a sheet: (H', W', 3) uint8, shrunk if it is large.

  `pixels` are (H, W, C) uint8 or uint16: gray, gray and alpha, RGB or RGBA.
  Transparent parts become white.
  """
  if pixels.dtype == np.uint16:
    pixels = (pixels >> 8).astype(np.uint8)
  image = as_image(pixels)
  image.thumbnail((_LONGEST, _LONGEST))
  white = Image.new('RGBA', image.size, 'white')
  shown = Image.alpha_composite(white, image.convert('RGBA'))
  return np.asarray(shown.convert('RGB'))


def encode_pair(before: np.ndarray, after: np.ndarray) -> bytes:
  """Encodes a sheet of a picture (H, W, 3) uint8 before and after, as JPEG."""
  sheet = side_by_side([('before', before), ('after', after)])
  file = io.BytesIO()
  Image.fromarray(sheet).save(file, format='JPEG', quality=92)
  return file.getvalue()
