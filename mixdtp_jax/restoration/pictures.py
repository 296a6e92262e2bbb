"""Pictures of any format: their pixels as arrays, and what comes with them."""

import dataclasses
import io
import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, JpegImagePlugin
from PIL.ImageFile import ImageFile as OpenFile

from mixdtp_jax.data import images
from mixdtp_jax.data.images import ImageError
from mixdtp_jax.restoration.metadata import Metadata, read_metadata
from mixdtp_jax.restoration.sixteen_bits import read_wide


class Frame(NamedTuple):
  """One frame or page."""

  # (H, W, C) uint8 or uint16, upright: gray, gray and alpha, RGB or RGBA.
  pixels: np.ndarray
  duration: float = 0  # milliseconds in an animation; 0 if it does not say
  metadata: Metadata = Metadata()  # of the picture; the first frame has it


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image file whose pixels are read when they are needed."""

  source: Path | bytes = dataclasses.field(repr=False)
  name: str  # how messages call it
  format: str  # Pillow's name; an MPO is a JPEG
  height: int  # of the first frame, upright, in pixels
  width: int
  count: int  # number of frames or pages
  largest: tuple[int, int]  # (H, W) of the largest of them
  pixels: int  # of all of them together
  stored: dict[str, Any]  # how, in the words of Pillow's writers

  def frames(self) -> Iterator[Frame]:
    """Decodes one frame after the other.

    ImageError, with the name, if the file is damaged, or stored in a way that
    is not read.
    """
    with _opened(self.source, self.name) as file:
      for index in range(self.count):
        if self.count > 1:  # else the file begins with its main image
          file.seek(index)
        frame = self._decoded(file)
        if not index:
          metadata = read_metadata(file, *frame.pixels.shape[:2])
          frame = frame._replace(metadata=metadata)
        yield frame

  def _decoded(self, file: OpenFile) -> Frame:
    if images.is_wide(file):
      if self.count > 1:
        raise ImageError(
          f'{self.name} has {self.count} frames or pages of 16 bits for each '
          'sample, which are not read: split the file'
        )
      with _opened(self.source, self.name) as second:
        pixels = read_wide(file, second, self.name)
    else:
      pixels = eight_bits(file)
    pixels = images.turned(pixels, images.orientation(file))
    return Frame(pixels, file.info.get('duration', 0))


def _opened(
  source: Path | bytes, name: str
) -> AbstractContextManager[OpenFile]:
  # The memory alone limits how many pixels a picture has.
  return images.opened(source, name, sys.maxsize)


def open_picture(source: Path | bytes, name: str = '') -> Picture:
  """Reads the header of an image of any format.

  `name` is for encoded bytes. ImageError if the file is not there, or is no
  image.
  """
  with _opened(source, name) as file:
    height, width = largest = images.upright_size(file)
    stored = _stored(file, source)
    several = images.is_animated(file)
    count = getattr(file, 'n_frames', 1) if several else 1
    pixels = count * height * width
    if count > 1 and file.format == 'TIFF':  # its pages have their own sizes
      sizes = []
      for page in range(count):
        file.seek(page)
        sizes.append(images.upright_size(file))
      largest = max(sizes, key=math.prod)
      pixels = sum(map(math.prod, sizes))
    return Picture(
      source,
      images.name_of(source, name),
      'JPEG' if file.format == 'MPO' else str(file.format),
      height,
      width,
      count,
      largest,
      pixels,
      stored,
    )


def _stored(file: OpenFile, source: Path | bytes) -> dict[str, Any]:
  info, stored = file.info, dict[str, Any]()
  if file.format in ('JPEG', 'MPO'):
    stored['progressive'] = bool(info.get('progressive'))
    tables = getattr(file, 'quantization', {})
    if tables and max(max(table) for table in tables.values()) < 256:
      stored['qtables'] = tables
      found = JpegImagePlugin.get_sampling(file)
      stored['subsampling'] = max(found, 0)  # -1: of another kind
  elif file.format == 'TIFF':
    stored['compression'] = info.get('compression', 'raw')
  elif file.format == 'WEBP':
    data = _content(source)
    lossless, lossy = data.find(b'VP8L'), data.find(b'VP8 ')
    stored['lossless'] = lossless >= 0 and not 0 <= lossy < lossless
  elif file.format == 'AVIF':
    bits = images.av1_flags(_content(source))
    sampling = ('4:4:4', '4:2:0', '4:2:2', '4:2:0')[bits >> 2 & 3]
    stored |= {'subsampling': sampling, 'deep': bool(bits & 0x40)}
  elif file.format == 'HEIF':
    stored['deep'] = info.get('bit_depth', 8) > 8
  if images.is_animated(file):
    if 'loop' in info:
      stored['loop'] = info['loop']
    if file.format == 'PNG' and info.get('default_image'):
      stored['default_image'] = True
  return stored


def _content(source: Path | bytes) -> bytes:
  return source if isinstance(source, bytes) else source.read_bytes()


def eight_bits(file: Image.Image) -> np.ndarray:
  """Returns an image as (H, W, C) uint8: gray, RGB, or either with alpha."""
  file.load()
  mode = file.mode
  if file.has_transparency_data:
    wanted = 'LA' if mode in ('1', 'L', 'LA', 'La') else 'RGBA'
  else:
    wanted = 'L' if mode in ('1', 'L') else 'RGB'
  if mode in ('CMYK', 'LAB'):
    file = _by_profile(file)
  pixels = np.asarray(file if file.mode == wanted else file.convert(wanted))
  return pixels[..., None] if pixels.ndim == 2 else pixels


def as_image(pixels: np.ndarray) -> Image.Image:
  """Returns (H, W, C) uint8 as a PIL image; the reverse of `eight_bits`."""
  return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _by_profile(file: Image.Image) -> Image.Image:
  """Converts to sRGB by the file's own profile, if it has a sound one."""
  if profile := file.info.get('icc_profile'):
    try:
      converted = ImageCms.profileToProfile(
        file,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile('sRGB'),
        outputMode='RGB',
      )
      return converted or file.convert('RGB')
    except (ImageCms.PyCMSError, OSError, TypeError):
      pass  # damaged, or a profile of other colours
  return file.convert('RGB')
