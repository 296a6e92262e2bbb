"""Encoding of TIFF with 16 bits, and with all EXIF: Pillow writes neither."""

import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL.TiffImagePlugin import AppendingTiffWriter, ImageFileDirectory_v2


def encode_tiff(
  pages: Sequence[np.ndarray], tags: dict[int, Any], compressed: bool
) -> bytes:
  """Encodes pages (H, W, C), uint8 or uint16, as a TIFF.

  Args:
    pages: each gray, gray and alpha, RGB or RGBA.
    tags: further tags of the first page, by number; a dict is a directory.
    compressed: whether the pixels are deflated.
  """
  file = io.BytesIO()
  with AppendingTiffWriter(file) as writer:
    for number, page in enumerate(pages):
      writer.write(_encode_page(page, {} if number else tags, compressed))
      writer.newFrame()
  return file.getvalue()


def _encode_page(pixels, tags, compressed) -> bytes:
  height, width, channels = pixels.shape
  size = pixels.dtype.itemsize
  if compressed:
    # Each sample less the one to its left, which compresses better.
    first = np.zeros_like(pixels[:, :1])
    pixels = np.diff(pixels, axis=1, prepend=first)
  data = pixels.astype(f'<u{size}').tobytes()
  data = zlib.compress(data, 3) if compressed else data
  directory = ImageFileDirectory_v2(prefix=b'II')
  layout = {
    256: width,
    257: height,
    258: (8 * size,) * channels,  # bits of each sample
    259: 8 if compressed else 1,
    262: 2 if channels > 2 else 1,  # RGB or gray
    273: 0,  # where the pixels begin; moved to behind the directory
    277: channels,
    278: height,  # rows in the one strip
    279: len(data),
    284: 1,  # the channels of a pixel together
    317: 2 if compressed else 1,  # differences
  }
  if channels in (2, 4):
    layout[338] = 2  # the last sample is alpha, not premultiplied
  for tag, value in (tags | layout).items():
    directory[tag] = value
  file = io.BytesIO()
  directory.save(file)
  return file.getvalue() + data
