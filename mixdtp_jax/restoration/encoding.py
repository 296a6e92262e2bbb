"""Encoding of restored pictures, in the way that the originals were stored."""

import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from mixdtp_jax.data.images import ImageError
from mixdtp_jax.restoration import sixteen_bits
from mixdtp_jax.restoration.metadata import (
  Metadata,
  fits,
  png_chunks,
  tiff_tags,
)
from mixdtp_jax.restoration.pictures import Frame, Picture, as_image

# The endings of each format; the first one is usual.
_ENDINGS = {
  'PNG': ('.png', '.apng'),
  'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo'),
  'WEBP': ('.webp',),
  'TIFF': ('.tif', '.tiff'),
  'AVIF': ('.avif',),
  'BMP': ('.bmp',),
  'GIF': ('.gif',),
  'HEIF': ('.heic', '.heif'),
}
ENDINGS = {e: format for format, ends in _ENDINGS.items() for e in ends}
_DEEP = ('PNG', 'TIFF')  # hold 16 bits
_SEVERAL = ('PNG', 'WEBP', 'GIF', 'TIFF', 'AVIF')  # hold several frames
# The longest side in pixels that a format's writer takes.
_LONGEST = {'JPEG': 65_500, 'WEBP': 16_383, 'GIF': 65_535, 'AVIF': 32_768}
_QUALITY = {'JPEG': 95, 'WEBP': 90, 'AVIF': 85, 'HEIF': 90}  # if not known
_BARE = ('BMP', 'GIF')  # hold no metadata
_BLOCKS = {'exif': 'EXIF', 'icc': 'the colour profile', 'xmp': 'XMP'}
_SEGMENT = 65_500  # bytes of EXIF or XMP in a JPEG
_PNG_HEADER = 33  # bytes of signature and first chunk


def format_of(name: str) -> str:
  """Returns the format that a file's ending stands for; '' if none does."""
  return ENDINGS.get(PurePath(name).suffix.lower(), '')


def ending_of(format: str) -> str:
  """Returns the usual ending of a format, such as '.jpg'."""
  return _ENDINGS[format][0]


def encode(
  picture: Picture,
  frames: Sequence[Frame],
  metadata: Metadata,
  *,
  format: str = '',
  quality: int | None = None,
) -> bytes:
  """Encodes restored frames as the picture was stored, or in another format.

  `metadata` is what to keep, without what the format does not hold: `lost`
  names that. `format` '' is that of the picture. `quality`, 1 to 100, is for
  JPEG, WebP, AVIF and HEIC; None keeps the tables and the sampling of a JPEG,
  and lossless WebP lossless.

  Raises:
    ImageError: the format cannot hold the picture; the message names both.
  """
  format = format or picture.format
  check_room(picture, format)
  frames = [
    frame._replace(pixels=_fitting(frame.pixels, format, picture.name))
    for frame in frames
  ]
  channels = frames[0].pixels.shape[2]
  left_out = _not_held(metadata, format, channels)
  if not fits(metadata.icc, channels):
    left_out.append('icc')
  changes: dict[str, Any] = dict.fromkeys(left_out, b'')
  metadata = dataclasses.replace(metadata, **changes)
  try:
    return _encode(picture, frames, metadata, format, quality)
  except Exception as error:  # noqa: BLE001  Pillow's writers raise anything
    raise ImageError(
      f'{picture.name} cannot be written as {format}: {error}'
    ) from error


def check_room(picture: Picture, format: str = '') -> None:
  """Raises ImageError if a format has no room for a picture's frames."""
  format = format or picture.format
  if picture.count > 1 and format not in _SEVERAL:
    raise ImageError(
      f'{picture.name} has {picture.count} frames or pages, and {format} holds '
      f'one: write {" or ".join(_SEVERAL)}'
    )
  if max(picture.largest) > _LONGEST.get(format, math.inf):
    height, width = picture.largest
    raise ImageError(
      f'{picture.name} has {width}x{height} pixels, and {format} holds '
      f'{_LONGEST[format]:,} along a side: write PNG or TIFF'
    )


def check_alpha(pixels: np.ndarray, name: str, format: str) -> None:
  """Raises ImageError if pixels (H, W, C) are transparent and must not be."""
  if pixels.shape[2] not in (2, 4) or format != 'JPEG':
    return
  if (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
    raise ImageError(
      f'{name} is partly transparent, which JPEG cannot hold: write PNG or WEBP'
    )


def _encode(picture, frames, metadata, format, quality) -> bytes:
  pixels = [frame.pixels for frame in frames]
  if format == 'TIFF':
    compressed = picture.stored.get('compression') != 'raw'
    return sixteen_bits.encode_tiff(pixels, tiff_tags(metadata), compressed)
  first, *others = pixels
  if first.dtype == np.uint16:
    data = sixteen_bits.encode_png(first)
  else:
    options = _options(picture, format, quality)
    if format != 'PNG':
      blocks = {
        'exif': metadata.exif and b'Exif\0\0' + metadata.exif,
        'icc_profile': metadata.icc,
        'xmp': metadata.xmp,
        'dpi': metadata.dpi,
      }
      options |= {name: block for name, block in blocks.items() if block}
    if others:
      options |= {'save_all': True, 'append_images': _Images(others)}
      options |= _timing(picture, frames, format)
    file = io.BytesIO()
    as_image(first).save(file, format=format, **options)
    data = file.getvalue()
  if format == 'PNG':
    data = data[:_PNG_HEADER] + png_chunks(metadata) + data[_PNG_HEADER:]
  return data


def _options(
  picture: Picture, format: str, quality: int | None
) -> dict[str, Any]:
  stored = picture.stored if format == picture.format else {}
  if format == 'PNG':
    return {'compress_level': 3}  # as `images.encode_png`
  lossless = stored.get('lossless', picture.format not in _QUALITY)
  if format == 'WEBP' and quality is None and lossless:
    return {'lossless': True, 'exact': True, 'quality': 50}
  if format not in _QUALITY:
    return {}
  options = {'quality': _QUALITY[format] if quality is None else quality}
  if format == 'AVIF':
    options['subsampling'] = stored.get('subsampling', '4:4:4')
  elif format == 'JPEG':
    options['progressive'] = stored.get('progressive', False)
    options['subsampling'] = 0 if options['quality'] >= 90 else 2
    if quality is None and 'qtables' in stored:
      del options['quality']
      options |= {name: stored[name] for name in ('qtables', 'subsampling')}
  return options


def _timing(picture, frames, format) -> dict[str, Any]:
  exact = format == 'PNG'  # whose times are fractions; others count in ms
  durations = [f.duration if exact else round(f.duration) for f in frames]
  timing: dict[str, Any] = {'duration': durations}
  if 'loop' in picture.stored and format != 'AVIF':
    timing['loop'] = picture.stored['loop']
  elif format == 'WEBP' or (format == 'PNG' and picture.format == 'GIF'):
    timing['loop'] = 1  # what a GIF without a number of loops means
  if format == 'GIF' and frames[0].pixels.shape[2] == 4:
    timing['disposal'] = 2  # else earlier frames show through later ones
  if format == 'PNG' and picture.stored.get('default_image'):
    timing['default_image'] = True
    del durations[0]
  return timing


def _fitting(pixels: np.ndarray, format: str, name: str) -> np.ndarray:
  """Returns pixels with the depth and the channels that a format holds."""
  if pixels.dtype == np.uint16 and format not in _DEEP:
    pixels = np.round(pixels / np.float32(257)).astype(np.uint8)
  if pixels.shape[2] in (2, 4) and format == 'JPEG':
    check_alpha(pixels, name, format)
    pixels = pixels[..., :-1]
  if pixels.shape[2] < 3 and not _keeps_gray(format, pixels.shape[2]):
    pixels = pixels[..., [0, 0, 0, 1][: 2 + pixels.shape[2]]]
  return pixels


def _keeps_gray(format: str, channels: int) -> bool:
  if channels == 2:  # gray and alpha; a JPEG is written without
    return format in ('PNG', 'JPEG')
  return channels == 1 and format != 'WEBP'


def lost(
  picture: Picture, metadata: Metadata, format: str = '', channels: int = 3
) -> str:
  """Names what of a picture and its metadata a format loses; '' for nothing.

  `channels` are those of the pixels before they are written.
  """
  format = format or picture.format
  blocks = _not_held(metadata, format, channels)
  things = ['damaged EXIF'] * metadata.damaged
  things += [f'{_BLOCKS[name]}, which {format} cannot hold' for name in blocks]
  if picture.stored.get('deep'):
    things.append('all but 8 bits of each sample')
  return ' and '.join(things)


def _not_held(metadata: Metadata, format: str, channels: int) -> list[str]:
  def is_held(name: str) -> bool:
    block = getattr(metadata, name)
    if format in _BARE:
      return not block
    if name == 'icc':  # which may be in several segments
      return block[16:20] != b'GRAY' or _keeps_gray(format, channels)
    return len(block) <= _SEGMENT or format != 'JPEG'

  return [name for name in _BLOCKS if not is_held(name)]


class _Images:
  """Images that are made when they are written, and not all at once."""

  def __init__(self, pixels: Sequence[np.ndarray]):
    self._pixels = pixels

  def __iter__(self) -> Iterator[Image.Image]:
    return map(as_image, self._pixels)
