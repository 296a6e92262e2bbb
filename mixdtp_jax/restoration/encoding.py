"""Encoding of restored pictures, in the way that the originals were stored."""

import io
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from mixdtp_jax.data.images import ImageError
from mixdtp_jax.restoration import sixteen_bits
from mixdtp_jax.restoration.metadata import Metadata, png_chunks, tiff_tags
from mixdtp_jax.restoration.pictures import Frame, Picture

# The format of each ending; the first ending of a format is its usual one.
ENDINGS = {
  '.png': 'PNG',
  '.apng': 'PNG',
  '.jpg': 'JPEG',
  '.jpeg': 'JPEG',
  '.jpe': 'JPEG',
  '.jfif': 'JPEG',
  '.mpo': 'JPEG',
  '.webp': 'WEBP',
  '.tif': 'TIFF',
  '.tiff': 'TIFF',
  '.avif': 'AVIF',
  '.bmp': 'BMP',
  '.gif': 'GIF',
  '.heic': 'HEIF',
  '.heif': 'HEIF',
}
_DEEP = ('PNG', 'TIFF')  # hold 16 bits
_SEVERAL = ('PNG', 'WEBP', 'GIF', 'TIFF', 'AVIF')  # hold several frames
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
  return next(e for e, known in ENDINGS.items() if known == format)


def encode(
  picture: Picture,
  frames: Sequence[Frame],
  metadata: Metadata,
  *,
  format: str = '',
  quality: int | None = None,
) -> bytes:
  """Encodes restored frames as the picture was stored, or in another format.

  Metadata that the format does not hold are left out: `lost` names them.

  Args:
    picture: the original.
    frames: its frames, restored.
    metadata: what to keep; `Metadata()` keeps nothing.
    format: the format to write; '' keeps that of the picture.
    quality: 1 to 100, for JPEG, WebP, AVIF and HEIC. None keeps the tables and
      the sampling of a JPEG, and lossless WebP lossless.

  Raises:
    ImageError: the format cannot hold the picture; the message names both.
  """
  format = format or picture.format
  if len(frames) > 1 and format not in _SEVERAL:
    raise ImageError(
      f'{picture.name} has {len(frames)} frames or pages, and {format} holds '
      f'one: write {" or ".join(_SEVERAL)}'
    )
  frames = [
    frame._replace(pixels=_fitting(frame.pixels, format, picture.name))
    for frame in frames
  ]
  metadata = _holdable(metadata, format, frames[0].pixels.shape[2])
  try:
    return _encode(picture, frames, metadata, format, quality)
  except Exception as error:  # noqa: BLE001  Pillow's writers raise anything
    raise ImageError(
      f'{picture.name} cannot be written as {format}: {error}'
    ) from error


def _encode(picture, frames, metadata, format, quality) -> bytes:
  pixels = [frame.pixels for frame in frames]
  if format == 'TIFF':
    compressed = picture.stored.get('compression') != 'raw'
    return sixteen_bits.encode_tiff(pixels, tiff_tags(metadata), compressed)
  if pixels[0].dtype == np.uint16:
    return _with_chunks(sixteen_bits.encode_png(pixels[0]), metadata)
  options = _options(picture, format, quality)
  if format != 'PNG':
    blocks = {
      'exif': metadata.exif and b'Exif\0\0' + metadata.exif,
      'icc_profile': metadata.icc,
      'xmp': metadata.xmp,
      'dpi': metadata.dpi,
    }
    options |= {name: block for name, block in blocks.items() if block}
  first, *others = pixels
  if others:
    options |= {'save_all': True, 'append_images': _Images(others)}
    options |= _timing(picture, frames, format)
  file = io.BytesIO()
  _as_image(first).save(file, format=format, **options)
  data = file.getvalue()
  return _with_chunks(data, metadata) if format == 'PNG' else data


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
  durations = [round(frame.duration) for frame in frames]
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
    if (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
      raise ImageError(
        f'{name} is partly transparent, which JPEG cannot hold: write PNG or '
        'WEBP'
      )
    pixels = pixels[..., :-1]
  if pixels.shape[2] == 2 and format != 'PNG':
    pixels = pixels[..., [0, 0, 0, 1]]  # what all of them can hold
  return pixels


def lost(picture: Picture, metadata: Metadata, format: str = '') -> str:
  """Names what of a picture and its metadata a format loses; '' for nothing."""
  format = format or picture.format
  blocks = [n for n in _BLOCKS if not _holds(format, n, getattr(metadata, n))]
  things = ['damaged EXIF'] * metadata.damaged
  things += [f'{_BLOCKS[name]}, which {format} cannot hold' for name in blocks]
  if picture.stored.get('deep'):
    things.append('all but 8 bits of each sample')
  return ' and '.join(things)


def _holds(format: str, name: str, block: bytes) -> bool:
  if format in _BARE:
    return not block
  fits = len(block) <= _SEGMENT or name == 'icc'  # which may be in several
  return fits or format != 'JPEG'


def _holdable(metadata: Metadata, format: str, channels: int) -> Metadata:
  """Returns the metadata without what would be wrong or not fit."""
  kept = dict(vars(metadata))
  space = metadata.icc[16:20]  # the colours that the profile is for
  if space not in (b'RGB ', b'GRAY') or (space == b'GRAY' and channels > 2):
    kept['icc'] = b''
  for name in _BLOCKS:
    if not _holds(format, name, kept[name]):
      kept[name] = b''
  return Metadata(**kept)


def _with_chunks(png: bytes, metadata: Metadata) -> bytes:
  return png[:_PNG_HEADER] + png_chunks(metadata) + png[_PNG_HEADER:]


class _Images:
  """Images that are made when they are written, and not all at once."""

  def __init__(self, pixels: Sequence[np.ndarray]):
    self._pixels = pixels

  def __iter__(self) -> Iterator[Image.Image]:
    return map(_as_image, self._pixels)


def _as_image(pixels: np.ndarray) -> Image.Image:
  return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
