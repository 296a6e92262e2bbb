"""PNG and TIFF with 16 bits for each sample, which Pillow has for gray alone.

Pillow unpacks the high byte of each sample. Told that the file has the other
byte order, it unpacks the low byte: two passes give all 16 bits.
"""

import io
import struct
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile as OpenFile
from PIL.TiffImagePlugin import AppendingTiffWriter, ImageFileDirectory_v2

from mixdtp_jax.data.images import ImageError, raw_mode

_SWAPPED = {'L': 'B', 'B': 'L', 'N': 'B' if sys.byteorder == 'little' else 'L'}
_CHANNELS = {'RGB;16': 3, 'RGBX;16': 3, 'RGBA;16': 4}
_PLANAR, _PHOTOMETRIC = 284, 262  # TIFF's tags
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by channels


def read_wide(first: OpenFile, second: OpenFile, name: str) -> np.ndarray:
  """Decodes all bits of a PNG or TIFF of 16 bits: (H, W, C) uint16.

  The result is gray, gray and alpha, RGB or RGBA. `first` and `second` are the
  same file, opened twice and not decoded. ImageError, with the name, if the
  samples are stored in another way.
  """
  raw, transparent = raw_mode(first), first.info.get('transparency')
  tags = getattr(first, 'tag_v2', {})
  known = tags.get(_PLANAR, 1) == 1 and tags.get(_PHOTOMETRIC, 1) in (1, 2)
  if known and raw in ('I;16', 'I;16B', 'I;16L', 'I;16N'):
    pixels = np.asarray(first).astype(np.uint16)[..., None]
  elif raw == 'LA;16B':
    pixels = _unpacked(first, 'I', 'I;32B').astype(np.uint32)
    pixels = np.stack([pixels >> 16, pixels & 0xFFFF], -1).astype(np.uint16)
  elif known and raw[:-1] in _CHANNELS:
    other = raw[:-1] + _SWAPPED[raw[-1]]
    high = np.asarray(first).astype(np.uint16)
    pixels = high << 8 | _unpacked(second, second.mode, other)
    pixels = pixels[..., : _CHANNELS[raw[:-1]]]
  else:
    raise ImageError(
      f'{name} stores its pixels as {raw or first.mode}, which is not read: '
      'convert it to 8 or 16 bits for each sample, in RGB or gray'
    )
  if isinstance(transparent, int | tuple):  # the one colour that is not seen
    opaque = (pixels != np.asarray(transparent)).any(-1, keepdims=True)
    pixels = np.concatenate([pixels, opaque * np.uint16(0xFFFF)], -1)
  return pixels


def _unpacked(file: OpenFile, mode: str, raw: str) -> np.ndarray:
  """Decodes a file as if its samples were stored as `raw`."""
  file._mode = mode
  file.tile = [
    tile._replace(
      args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw
    )
    for tile in file.tile
  ]
  return np.asarray(file)


def png_chunk(kind: bytes, data: bytes) -> bytes:
  """Returns a chunk of a PNG file."""
  check = zlib.crc32(kind + data)
  return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)


def encode_png(pixels: np.ndarray) -> bytes:
  """Encodes (H, W, C) uint16 as a PNG."""
  height, width, channels = pixels.shape
  header = struct.pack(
    '>IIBBBBB', width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0
  )
  rows = pixels.astype('>u2').reshape(height, -1).view(np.uint8)
  # Each byte less the one above it (filter 2), which compresses better.
  lines = np.empty((height, 1 + rows.shape[1]), np.uint8)
  lines[:, 0] = 2
  lines[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      png_chunk(b'IHDR', header),
      png_chunk(b'IDAT', zlib.compress(lines.tobytes(), 3)),
      png_chunk(b'IEND', b''),
    ]
  )


def encode_tiff(
  pages: Sequence[np.ndarray], tags: dict[int, Any], compressed: bool
) -> bytes:
  """Encodes pages as a TIFF, with all EXIF.

  Each page is (H, W, C) uint8 or uint16: gray, gray and alpha, RGB or RGBA.
  `tags` are further ones of the first page, by number; a dict is a directory.
  `compressed` deflates the pixels.
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
