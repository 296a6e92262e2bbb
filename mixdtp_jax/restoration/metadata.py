"""What a picture says about itself: EXIF, ICC profile, XMP, resolution.

EXIF is changed in place and not written new, because notes of camera makers
refer to places in it.
"""

import dataclasses
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

from mixdtp_jax.restoration.sixteen_bits import png_chunk

_PREFIX = b'Exif\0\0'
_SHORT, _LONG = 3, 4  # types of EXIF's values
_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0xA002, 0xA003
_CAMERA, _PLACE = 0x8769, 0x8825  # directories within EXIF
_THUMBNAILS = ((0x0201, 0x0202), (0x0111, 0x0117))  # tags of place and length
_TURNED = re.compile(rb'(tiff:Orientation(?:=["\']|>)\s*)\d')
# What a TIFF says about its scene and not about how its pixels are stored:
# description, maker, model, software, date, artist, copyright.
_ABOUT = (270, 271, 272, 305, 306, 315, 33432)


@dataclasses.dataclass(frozen=True)
class Metadata:
  """What is kept of a picture, as of the upright picture."""

  exif: bytes = b''  # as in a file, without the 'Exif' before it
  icc: bytes = b''  # the ICC profile of the colours
  xmp: bytes = b''  # XML text
  dpi: tuple[float, float] | None = None  # pixels per inch, right and down
  colours: bytes = b''  # chunks that define the colours of a PNG, without icc
  damaged: bool = False  # whether EXIF was there but could not be read


def read_metadata(file: Image.Image, height: int, width: int) -> Metadata:
  """Reads the metadata of a decoded file, whose upright picture is H x W."""
  exif, damaged = _exif(file), False
  try:
    exif = _upright(exif, height, width) if exif else b''
  except (struct.error, KeyError):
    exif, damaged = b'', True
  xmp = file.info.get('xmp') or file.info.get('XML:com.adobe.xmp') or b''
  xmp = xmp.encode() if isinstance(xmp, str) else xmp
  return Metadata(
    exif,
    file.info.get('icc_profile') or b'',
    _TURNED.sub(rb'\g<1>1', xmp),
    _dpi(file.info.get('dpi')),
    _png_colours(file.info) if file.format == 'PNG' else b'',
    damaged,
  )


def fits(profile: bytes, channels: int) -> bool:
  """Returns whether an ICC profile is for gray or RGB pixels of that kind."""
  space = profile[16:20]
  return space == b'RGB ' or (space == b'GRAY' and channels < 3)


def png_chunks(metadata: Metadata) -> bytes:
  """Returns the chunks that belong behind the header of a PNG."""
  chunks = metadata.colours
  if metadata.icc:
    profile = b'ICC profile\0\0' + zlib.compress(metadata.icc)
    chunks = png_chunk(b'iCCP', profile)
  if metadata.exif:
    chunks += png_chunk(b'eXIf', metadata.exif)
  if metadata.xmp:
    chunks += png_chunk(b'iTXt', b'XML:com.adobe.xmp' + bytes(5) + metadata.xmp)
  if metadata.dpi:
    per_metre = [round(value / 0.0254) for value in metadata.dpi]
    chunks += png_chunk(b'pHYs', struct.pack('>IIB', *per_metre, 1))
  return chunks


def tiff_tags(metadata: Metadata) -> dict[int, Any]:
  """Returns the tags of a TIFF, by number; a dict is a directory."""
  exif = Image.Exif()
  exif.load(metadata.exif)
  tags = _about(exif)
  blocks = {700: metadata.xmp, 34675: metadata.icc}
  tags |= {tag: block for tag, block in blocks.items() if block}
  if metadata.dpi:
    tags |= {282: metadata.dpi[0], 283: metadata.dpi[1], 296: 2}
  return tags


def _exif(file: Image.Image) -> bytes:
  found = file.info.get('exif') or b''
  if file.format == 'TIFF' or 'Raw profile type exif' in file.info:
    # It is not there in one piece, and written new.
    written = Image.Exif()
    try:
      written.update(_about(file.getexif()))
      found = written.tobytes() if written else b''
    except Exception:  # noqa: BLE001  Pillow raises anything on damaged EXIF
      return b'damaged'
  while found.startswith(_PREFIX):
    found = found.removeprefix(_PREFIX)
  return found


def _about(exif: Image.Exif) -> dict[int, Any]:
  """Returns the tags that tell of the scene; a dict is a directory."""
  tags = {tag: exif[tag] for tag in _ABOUT if tag in exif}
  for tag, value in tags.items():
    if isinstance(value, str):  # as the bytes that Pillow made it from
      tags[tag] = value.encode('latin-1', 'replace')
  for directory in (_CAMERA, _PLACE):
    if values := exif.get_ifd(directory):
      tags[directory] = values
  return tags


def _upright(exif: bytes, height: int, width: int) -> bytes:
  """Returns EXIF with orientation 1, the true size, and no thumbnail.

  Raises struct.error or KeyError if it is damaged.
  """
  data = bytearray(exif)
  order = {b'II*\0': '<', b'MM\0*': '>'}[bytes(data[:4])]

  def number(place: int) -> int:
    return struct.unpack_from(f'{order}I', data, place)[0]

  def entries(place: int) -> Iterator[tuple[int, int, int]]:
    (count,) = struct.unpack_from(f'{order}H', data, place)
    for at in range(place + 2, place + 2 + 12 * count, 12):
      tag, kind = struct.unpack_from(f'{order}HH', data, at)
      if kind == _SHORT:
        yield tag, struct.unpack_from(f'{order}H', data, at + 8)[0], at
      else:
        yield tag, number(at + 8), at

  first = number(4)
  camera = None
  for tag, value, at in entries(first):
    if tag == _ORIENTATION:
      struct.pack_into(f'{order}HIHH', data, at + 2, _SHORT, 1, 1, 0)
    elif tag == _CAMERA:
      camera = value
  sizes = {_WIDTH: width, _HEIGHT: height}
  for tag, _, at in entries(camera) if camera else ():
    if tag in sizes:
      struct.pack_into(f'{order}HII', data, at + 2, _LONG, 1, sizes[tag])
  link = first + 2 + 12 * struct.unpack_from(f'{order}H', data, first)[0]
  if thumbnail := number(link):
    struct.pack_into(f'{order}I', data, link, 0)
    found = {tag: value for tag, value, _ in entries(thumbnail)}
    for place, length in _THUMBNAILS:
      start, size = found.get(place, 0), found.get(length, 0)
      if start > link and start + size >= len(data):
        del data[start:]
      elif start > link:
        data[start : start + size] = bytes(size)
  return bytes(data)


def _dpi(found: Any) -> tuple[float, float] | None:
  try:
    right, down = map(float, found)
  except (TypeError, ValueError, ZeroDivisionError):
    return None
  sound = all(1 < value <= 1e5 for value in (right, down))
  return (right, down) if sound else None


def _png_colours(info: dict) -> bytes:
  chunks = b''
  if 'srgb' in info:
    chunks += png_chunk(b'sRGB', bytes([info['srgb']]))
  if 'gamma' in info:
    chunks += png_chunk(b'gAMA', _hundred_thousandths([info['gamma']]))
  if 'chromaticity' in info:
    chunks += png_chunk(b'cHRM', _hundred_thousandths(info['chromaticity']))
  return chunks


def _hundred_thousandths(values) -> bytes:
  return struct.pack(f'>{len(values)}I', *(round(1e5 * v) for v in values))
