"""Small images in every format and way of storing, sound and damaged."""

import functools
import io
import itertools
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

from mixdtp_jax.restoration import sixteen_bits

_XMP = b'<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>'


def smooth(seed=0, height=36, width=48):
  small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3))
  image = Image.fromarray(small.astype(np.uint8))
  return image.resize((width, height), Image.Resampling.BICUBIC)


@functools.cache  # it has the time in it
def profile():
  return ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def printers_profile():
  """An ICC profile whose inks C, M, Y, K are red, green, blue, black."""
  inks = {  # L, a, b under D50 of sRGB's primaries
    (0, 0, 0, 0): (100, 0, 0),
    (1, 0, 0, 0): (54.29, 80.81, 69.89),
    (0, 1, 0, 0): (87.82, -79.27, 80.99),
    (0, 0, 1, 0): (29.57, 68.30, -112.03),
  }
  corners = [
    (round(light * 2.55), round(a + 128), round(b + 128))
    for corner in itertools.product((0, 1), repeat=4)
    for light, a, b in [inks.get(corner, (0, 0, 0))]
  ]
  line = bytes(range(256))
  matrix = [65536 * (row == column) for row in range(3) for column in range(3)]
  table = b'mft1' + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack('>9i', *matrix)
  table += 4 * line + bytes(np.ravel(corners).tolist()) + 3 * line
  head = struct.pack('>I4xI', 128 + 16 + len(table), 0x02400000)
  head += b'prtrCMYKLab ' + bytes(12) + b'acsp' + bytes(28)
  head += struct.pack('>3i', 63190, 65536, 54061)  # D50
  head = head.ljust(128, b'\0') + struct.pack('>I', 1)
  return head + b'A2B0' + struct.pack('>II', 144, len(table)) + table


def exif(orientation=6):
  """Of a phone: orientation, maker, date, size, place."""
  found = Image.Exif()
  found[0x0112] = orientation
  found[271], found[306] = 'Maker', '2024:01:02 03:04:05'
  found.get_ifd(0x8769).update({0x9003: '2024:01:02 03:04:05', 0xA002: 48})
  found.get_ifd(0x8825).update({1: 'N', 2: (47.0, 22.0, 30.0)})
  return found


def metadata():
  return {
    'exif': exif(),
    'icc_profile': profile(),
    'xmp': _XMP,
    'dpi': (300, 300),
  }


def wide(channels, seed=0):
  shape = (24, 31, channels)
  return np.random.default_rng(seed).integers(0, 65536, shape).astype(np.uint16)


def _animated(**options):
  return {
    'save_all': True,
    'append_images': [smooth(1), smooth(2)],
    'duration': [20, 40, 60],
    'loop': 2,
    **options,
  }


# By name: mode, format, options of Pillow's writer.
_STORED = {
  'png': ('RGB', 'PNG', metadata),
  'png_gray': ('L', 'PNG', dict),
  'png_gray_alpha': ('LA', 'PNG', dict),
  'png_palette': ('P', 'PNG', dict),
  'png_transparent': ('P', 'PNG', lambda: {'transparency': 3}),
  'png_alpha': ('RGBA', 'PNG', dict),
  'png_one_bit': ('1', 'PNG', dict),
  'jpeg': ('RGB', 'JPEG', metadata),
  'jpeg_gray': ('L', 'JPEG', dict),
  'jpeg_cmyk': ('CMYK', 'JPEG', dict),
  'jpeg_progressive': ('RGB', 'JPEG', lambda: {'progressive': True}),
  'mpo': (
    'RGB',
    'MPO',
    lambda: {'save_all': True, 'append_images': [smooth()]},
  ),
  'webp': ('RGB', 'WEBP', metadata),
  'webp_lossless': ('RGBA', 'WEBP', lambda: {'lossless': True}),
  'avif': ('RGB', 'AVIF', metadata),
  'tiff': ('RGB', 'TIFF', lambda: {'icc_profile': profile()}),
  'tiff_lzw': ('RGB', 'TIFF', lambda: {'compression': 'tiff_lzw'}),
  'tiff_jpeg': ('RGB', 'TIFF', lambda: {'compression': 'jpeg'}),
  'tiff_fax': ('1', 'TIFF', lambda: {'compression': 'group4'}),
  'tiff_cmyk': ('CMYK', 'TIFF', dict),
  'tiff_lab': ('LAB', 'TIFF', dict),
  'bmp': ('RGB', 'BMP', dict),
  'bmp_palette': ('P', 'BMP', dict),
  'gif': ('RGB', 'GIF', dict),
  'gif_animated': ('RGB', 'GIF', _animated),
  'png_animated': ('RGB', 'PNG', _animated),
  'webp_animated': ('RGB', 'WEBP', _animated),
  'avif_animated': ('RGB', 'AVIF', _animated),
}
_WIDE = {
  **{
    f'png_16_{n}': lambda n=n: sixteen_bits.encode_png(wide(n))
    for n in (1, 2, 3, 4)
  },
  'tiff_16': lambda: sixteen_bits.encode_tiff([wide(3)], {271: 'Maker'}, False),
  'tiff_16_deflated': lambda: sixteen_bits.encode_tiff([wide(4)], {}, True),
  'tiff_pages': lambda: sixteen_bits.encode_tiff([wide(3), wide(1)], {}, True),
}
NAMES = (*_STORED, *_WIDE)


@functools.cache
def sound(name: str) -> bytes:
  """A sound file."""
  if name in _WIDE:
    return _WIDE[name]()
  mode, format, options = _STORED[name]
  file = io.BytesIO()
  smooth().convert(mode).save(file, format=format, **options())
  return file.getvalue()


def big_png(height, width):
  """A PNG of a few kB with very many pixels."""
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  packer = zlib.compressobj(9)
  data = packer.compress(bytes(2**20)) + packer.flush()
  chunks = ((b'IHDR', header), (b'IDAT', data), (b'IEND', b''))
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    sixteen_bits.png_chunk(*c) for c in chunks
  )


def damaged(name: str, count: int, seed: int = 0):
  """Yields damaged copies: most damage is near the start, where headers are."""
  random = np.random.default_rng([seed, *name.encode()])
  for _ in range(count):
    data = _damage(bytearray(sound(name)), random)
    # Else most damage of a PNG would stop at its check sums.
    yield _with_sums(data) if random.random() < 0.5 else data


def _damage(data, random) -> bytes:
  def place():
    return int(min(len(data) - 1, random.exponential(len(data) / 8)))

  kind, length = random.integers(7), int(random.integers(1, 40))
  start = place()
  if kind == 0:
    for _ in range(length % 5 + 1):
      data[place()] ^= 1 << int(random.integers(8))
  elif kind == 1:
    del data[int(random.integers(1, len(data))) :]
  elif kind == 2:
    data[start : start + length] = bytes(len(data[start : start + length]))
  elif kind == 3:
    extreme = (b'\xff' * 4, bytes(4), b'\x7f\xff\xff\xff')[length % 3]
    data[start : start + 4] = extreme[: len(data[start : start + 4])]
  elif kind == 4:
    target = place()
    data[target:target] = data[start : start + length]
  elif kind == 5:
    del data[start : start + length]
  else:  # goes on as another image
    other = sound(NAMES[int(random.integers(len(NAMES)))])
    data[start:] = other[int(random.integers(len(other))) :]
  return bytes(data)


def _with_sums(data: bytes) -> bytes:
  """Corrects the check sums of a PNG's chunks; others stay as they are."""
  if not data.startswith(b'\x89PNG\r\n\x1a\n'):
    return data
  found, place = bytearray(data), 8
  while place + 12 <= len(data):
    end = place + 8 + int.from_bytes(data[place : place + 4])
    if end + 4 > len(data):
      break
    found[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4)
    place = end + 4
  return bytes(found)
