"""The one reader of image files, and a writer of PNG.

`read_image` and `image_shape` are for data sets, which hold RGB of 8 bits;
`restoration.pictures` reads the rest through `opened`.
"""

import contextlib
import ctypes
import functools
import io
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile as OpenFile

from mixdtp_jax.runtime.files import replacing

MAX_PIXELS = 178_956_970  # of an image; Pillow has this limit too
_SMALLER = 'make it smaller, or cut it'

# Other formats are not tried: EPS, for one, would start another program.
_FORMATS = ('PNG', 'JPEG', 'WEBP', 'TIFF', 'AVIF', 'BMP', 'GIF')
_HEIC = (b'heic', b'heix', b'hevc', b'hevx')  # brands of files
_ORIENTATION = 0x0112  # EXIF's tag
# Chunks of a PNG: the first one and those that may hold EXIF or XMP; the last.
_CHUNKS = (b'IHDR', b'eXIf', b'tEXt', b'zTXt', b'iTXt')
_END = b'\0\0\0\0IEND\xaeB`\x82'
# By orientation: the steps along rows and columns, and whether they swap.
_TURNS = {
  1: (1, 1, False),
  2: (1, -1, False),
  3: (-1, -1, False),
  4: (-1, 1, False),
  5: (1, 1, True),
  6: (-1, 1, True),
  7: (-1, -1, True),
  8: (1, -1, True),
}


class ImageError(ValueError):
  """An image that cannot be used; the message names it and says why."""


class Half(NamedTuple):
  """One half of a file that shows a pair side by side."""

  path: Path
  side: str  # 'left' or 'right'


# A file, the encoded bytes of an image, or half a file.
ImageFile = Path | bytes | Half


def image_shape(image: ImageFile, label: str = '') -> tuple[int, int]:
  """Returns (H, W) of the upright image, from the header.

  `label` names encoded bytes, for errors. ImageError if it is no image, not RGB
  of 8 bits, or half of an odd width.
  """
  if isinstance(image, Half):
    height, width = image_shape(image.path)
    return height, _half_width(image.path, width)
  with opened(image, label) as file:
    _check_rgb(file, name_of(image, label))
    return upright_size(file)


def read_image(image: ImageFile, label: str = '') -> np.ndarray:
  """Decodes an image of a data set to (H, W, 3) uint8, upright.

  Arguments and errors are those of `image_shape`; ImageError also if its data
  are damaged.
  """
  if isinstance(image, Half):
    both = read_image(image.path)
    middle = _half_width(image.path, both.shape[1])
    return both[:, :middle] if image.side == 'left' else both[:, middle:]
  with opened(image, label) as file:
    _check_rgb(file, name_of(image, label))
    file.load()
    return turned(np.asarray(file.convert('RGB')), orientation(file))


@contextlib.contextmanager
def opened(
  image: Path | bytes, label: str = '', max_pixels: int = MAX_PIXELS
) -> Iterator[OpenFile]:
  """Opens an image; it is decoded, and its frames are read, in the body.

  `label` names encoded bytes, for errors.

  Raises:
    ImageError: the file is not there, is no image or a damaged one, or has more
      than `max_pixels`; or the body's work with Pillow fails.
  """
  name = name_of(image, label)
  try:
    with _binary(image, name) as file:
      _check_format(file, name)
      with Image.open(file, formats=formats()) as found:
        if found.width * found.height > max_pixels:
          raise ImageError(
            f'{name} has {found.width}x{found.height} pixels, more than the '
            f'{max_pixels:,} that are read: {_SMALLER}'
          )
        yield found
  except ImageError:
    raise
  # Pillow's decoders raise anything on damaged data.
  except Exception as error:
    raise ImageError(f'{name} {_failure(error)}') from error


def _failure(error: Exception) -> str:
  if isinstance(error, Image.DecompressionBombError):
    return f'has more than {MAX_PIXELS:,} pixels: {_SMALLER}'
  if isinstance(error, UnidentifiedImageError):
    known = ', '.join(formats())
    return f'cannot be decoded: it is none of {known}, or its header is damaged'
  if isinstance(error, MemoryError):
    return 'needs more memory than there is'
  if isinstance(error, OSError) and error.strerror:
    return f'cannot be read: {error.strerror}'
  reason = ' '.join(str(error).split()) or type(error).__name__
  return f'cannot be decoded ({reason}): it is damaged or cut short'


def name_of(image: Path | bytes, label: str = '') -> str:
  """Returns a printable name: of the file, or of encoded bytes their label."""
  name = str(image) if isinstance(image, Path) else label
  return name if name.isprintable() else ascii(name)


def orientation(file: Image.Image) -> int:
  """Returns how the pixels lie, 1 to 8 as in EXIF; 1 if nothing says so.

  Call it after `load` for a PNG, which may have EXIF behind its pixels.
  """
  if file.format in ('TIFF', 'HEIF'):  # turned while they are decoded
    return 1
  try:
    value = file.getexif().get(_ORIENTATION, 1)
  except Exception:  # noqa: BLE001  damaged EXIF leaves the pixels sound
    return 1
  return value if value in _TURNS else 1


def upright_size(file: OpenFile) -> tuple[int, int]:
  """Returns (H, W) of the image as it is meant to be seen."""
  how = _orientation_of_png(file) if file.format == 'PNG' else orientation(file)
  swapped = _TURNS[how][2]
  return (file.width, file.height) if swapped else (file.height, file.width)


def turned(pixels: np.ndarray, how: int) -> np.ndarray:
  """Turns and mirrors (H, W, ...) pixels that lie as orientation `how` says."""
  rows, columns, swapped = _TURNS[how]
  pixels = pixels[::rows, ::columns]
  return np.ascontiguousarray(pixels.swapaxes(0, 1) if swapped else pixels)


def raw_mode(file: OpenFile) -> str:
  """Returns how an opened file stores samples, as Pillow names it, or ''."""
  arguments = file.tile[0][3] if file.tile else ''
  first = arguments[0] if isinstance(arguments, tuple) else arguments
  return first if isinstance(first, str) else ''


def is_wide(file: OpenFile) -> bool:
  """Returns whether an opened file has more than 8 bits for each sample."""
  return ';16' in raw_mode(file) or file.mode.startswith(('I', 'F'))


def av1_flags(data: bytes) -> int:
  """Returns the byte of an AVIF that says its depth and sampling of colours.

  Bit 0x40 is for more than 8 bits; 0x0C if there is no such byte.
  """
  place = data.find(b'av1C')
  return data[place + 6] if 0 <= place < len(data) - 6 else 0x0C


def _is_cut(file: OpenFile) -> bool:
  """Returns whether Pillow gives 8 bits of a file that has more."""
  if file.format != 'AVIF' or file.fp is None:
    return file.info.get('bit_depth', 8) > 8  # of HEIF
  file.fp.seek(0)
  return bool(av1_flags(file.fp.read()) & 0x40)


def is_animated(file: OpenFile) -> bool:
  """Returns whether a file has several frames or pages.

  The further images of an MPO or HEIC, such as the other eye's, do not count.
  """
  several = getattr(file, 'is_animated', False)
  return several and file.format not in ('MPO', 'HEIF')


def encoded(image: ImageFile) -> bytes:
  """Returns the bytes of a file as they are; of half a file, those of a PNG.

  OSError if it cannot be read, ImageError if it is a pipe, or half a file that
  cannot be decoded.
  """
  if isinstance(image, Half):
    return encode_png(read_image(image))
  with _binary(image, name_of(image)) as file:
    return file.read()


def encode_png(image: np.ndarray) -> bytes:
  """Encodes (H, W, 3) uint8 as a PNG."""
  buffer = io.BytesIO()
  # On photographs the usual level 6 takes twice as long for the same size.
  Image.fromarray(image).save(buffer, format='PNG', compress_level=3)
  return buffer.getvalue()


def write_png(image: np.ndarray, path: str | os.PathLike) -> None:
  """Writes (H, W, 3): uint8, or float in [0, 1], which is rounded."""
  with replacing(path) as temporary:
    Image.fromarray(to_uint8(image)).save(temporary, format='PNG')


def to_uint8(image: np.ndarray) -> np.ndarray:
  """Returns (H, W, 3), uint8 or float in [0, 1] to be rounded, as uint8.

  ValueError if it has another shape, or values that are not finite.
  """
  image = np.asarray(image)
  if image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(f'image of shape {image.shape}: needs (H, W, 3)')
  if image.dtype == np.uint8:
    return image
  if not np.isfinite(image).all():
    raise ValueError('the image has values that are not finite')
  # In float32, as protocol rgb8 rounds: both see the same image.
  scaled = np.float32(255) * np.clip(image.astype(np.float32), 0, 1)
  return np.round(scaled).astype(np.uint8)


def _half_width(path: Path, width: int) -> int:
  if width % 2:
    raise ImageError(
      f'{path} is {width} pixels wide, which is odd: it does not hold two '
      'images side by side'
    )
  return width // 2


def _check_rgb(file: OpenFile, name: str) -> None:
  if is_wide(file) or _is_cut(file):
    raise ImageError(
      f'{name} has more than 8 bits for each sample, and data sets hold 8: '
      'convert it to 8 bits'
    )
  # A palette is a way to store RGB; any other mode is another image.
  transparent = ' with transparency' * ('transparency' in file.info)
  if file.mode not in ('RGB', 'P') or transparent:
    raise ImageError(
      f'{name} is not RGB (its mode is {file.mode}{transparent}): convert it '
      'to RGB'
    )
  if is_animated(file):
    raise ImageError(f'{name} has several frames or pages: keep one of them')


@functools.cache
def formats() -> tuple[str, ...]:
  """Prepares Pillow and names the formats that it can read here."""
  # A long text in a PNG is no reason to refuse it.
  PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
  # Of a damaged TIFF, libtiff would print a line without the file's name.
  with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)
  try:
    import pillow_heif
  except ImportError:
    return _FORMATS
  pillow_heif.register_heif_opener()
  return (*_FORMATS, 'HEIF')


@contextlib.contextmanager
def _binary(image: Path | bytes, name: str) -> Iterator[BinaryIO]:
  if isinstance(image, bytes):
    yield io.BytesIO(image)
    return
  # A pipe or a device might never end.
  if not stat.S_ISREG(image.stat().st_mode):
    raise ImageError(f'{name} is not a file but a folder, pipe or device')
  with image.open('rb') as file:
    yield file


def _check_format(file: BinaryIO, name: str) -> None:
  """Refuses an empty file, and HEIC if the package that reads it is missing."""
  head = file.read(32)
  file.seek(0)
  if not head:
    raise ImageError(f'{name} is empty')
  is_heic = head[4:8] == b'ftyp' and any(brand in head for brand in _HEIC)
  if is_heic and 'HEIF' not in formats():
    raise ImageError(
      f'{name} is HEIC, which needs another package: '
      f'{sys.executable} -m pip install pillow-heif'
    )


def _orientation_of_png(file: OpenFile) -> int:
  """Returns what `orientation` will, also if EXIF is behind the pixels.

  Pillow would decode the pixels to look there.
  """
  assert file.fp
  place, size = file.fp.tell(), file.fp.seek(0, os.SEEK_END)
  file.fp.seek(0)
  kept = [file.fp.read(8)]  # the signature
  while len(head := file.fp.read(8)) == 8:
    length, kind = struct.unpack('>I4s', head)
    if kind in _CHUNKS and length < size:
      kept.append(head + file.fp.read(length + 4))
    else:
      file.fp.seek(length + 4, os.SEEK_CUR)
  file.fp.seek(place)
  without_pixels = io.BytesIO(b''.join((*kept, _END)))
  try:
    with Image.open(without_pixels, formats=('PNG',)) as header:
      header.info.setdefault('exif')  # else it would look for pixels
      return orientation(header)
  except Exception:  # noqa: BLE001  damaged chunks leave the pixels sound
    return 1
