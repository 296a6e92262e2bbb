"""The one reader of image files, and their writer."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mixdtp_jax.runtime.files import replacing


class Half(NamedTuple):
  """One half of a file that shows a pair side by side."""

  path: Path
  side: str  # 'left' or 'right'


# A file, the encoded bytes of a PNG or JPEG, or half a file.
ImageFile = Path | bytes | Half


def image_shape(image: ImageFile, label: str = '') -> tuple[int, int]:
  """(H, W) from the header.

  Args:
    image: file, encoded bytes, or half a file.
    label: names the image in errors, where it is no file.

  Raises:
    ValueError: not a PNG or JPEG, not RGB, or half of an odd width.
  """
  if isinstance(image, Half):
    height, width = image_shape(image.path)
    return height, _half_width(image.path, width)
  with _opened(image, label) as opened:
    return opened.height, opened.width


def read_image(image: ImageFile, label: str = '') -> np.ndarray:
  """Decodes to (H, W, 3) uint8; arguments and errors as `image_shape`'s.

  Raises:
    ValueError: as there, or the data is cut short or damaged.
  """
  if isinstance(image, Half):
    both = read_image(image.path)
    middle = _half_width(image.path, both.shape[1])
    return both[:, :middle] if image.side == 'left' else both[:, middle:]
  with _opened(image, label) as opened:
    return np.asarray(opened.convert('RGB'))


def encoded(image: ImageFile) -> bytes:
  """The bytes of a file as they are, and those of half a file as a PNG.

  Raises:
    OSError: the file cannot be read.
    ValueError: half a file, and it cannot be decoded.
  """
  if isinstance(image, Half):
    return encode_png(read_image(image))
  return image.read_bytes() if isinstance(image, Path) else image


def encode_png(image: np.ndarray) -> bytes:
  """(H, W, 3) uint8 as a PNG."""
  buffer = io.BytesIO()
  # On photographs the usual level 6 takes twice as long for the same size.
  Image.fromarray(image).save(buffer, format='PNG', compress_level=3)
  return buffer.getvalue()


def _half_width(path: Path, width: int) -> int:
  if width % 2:
    raise ValueError(
      f'{path} is {width} pixels wide, which is odd: it does not hold two '
      'images side by side'
    )
  return width // 2


@contextmanager
def _opened(image: Path | bytes, label: str) -> Iterator[Image.Image]:
  label = str(image) if isinstance(image, Path) else label
  source = image if isinstance(image, Path) else io.BytesIO(image)
  try:
    with Image.open(source, formats=('PNG', 'JPEG')) as opened:
      # A palette is a way to store RGB; any other mode is another image.
      transparent = ' with transparency' * ('transparency' in opened.info)
      if opened.mode not in ('RGB', 'P') or transparent:
        raise ValueError(
          f'{label} is not RGB (its mode is {opened.mode}{transparent}): '
          'convert it to RGB'
        )
      yield opened
  # SyntaxError is what Pillow raises for a damaged PNG chunk.
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise ValueError(
      f'{label} cannot be decoded as PNG or JPEG ({error}): replace the file'
    ) from error


def write_png(image: np.ndarray, path: str | os.PathLike) -> None:
  """Writes (H, W, 3): uint8, or float in [0, 1], which is rounded."""
  with replacing(path) as temporary:
    Image.fromarray(to_uint8(image)).save(temporary, format='PNG')


def to_uint8(image: np.ndarray) -> np.ndarray:
  """(H, W, 3), uint8 or float in [0, 1], as uint8: clamped and rounded.

  Raises:
    ValueError: the image has another shape, or values that are not finite.
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
