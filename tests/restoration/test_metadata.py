import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mixdtp_jax.restoration.encoding import encode, lost
from mixdtp_jax.restoration.metadata import Metadata
from mixdtp_jax.restoration.pictures import open_picture
from tests.helpers import hostile

THUMBNAIL = b'\xff\xd8 a small picture with rain \xff\xd9'
NOTE = b'MAKER NOTE at a place of its own'


def written(data, **options):
  picture = open_picture(data, 'x')
  frames = list(picture.frames())
  metadata = frames[0].metadata
  kept = options.pop('metadata', metadata)
  return encode(picture, frames, kept, **options)


def opened(data):
  image = Image.open(io.BytesIO(data))
  image.load()
  return image


def xmp_of(image):
  found = image.info.get('xmp', b'')
  return found if isinstance(found, bytes) else found.encode()


@pytest.mark.parametrize('name', ['jpeg', 'png', 'webp', 'avif'])
@pytest.mark.parametrize('format', ['', 'TIFF', 'PNG', 'JPEG', 'WEBP', 'AVIF'])
def test_date_place_camera_profile_and_xmp_are_kept(name, format):
  source = hostile.sound(name)
  image = opened(written(source, format=format))
  assert image.size == (36, 48)  # upright: it lay on its side
  exif = image.getexif()
  assert exif.get(0x0112, 1) == 1
  assert (exif[271], exif[306]) == ('Maker', '2024:01:02 03:04:05')
  camera, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
  assert camera[0x9003] == '2024:01:02 03:04:05'
  assert camera[0xA002] == 36
  assert (place[1], place[2]) == ('N', (47.0, 22.0, 30.0))
  assert image.info['icc_profile'] == hostile.profile()
  if name != 'png':  # Pillow writes no XMP there
    assert b'tiff:Orientation="1"' in xmp_of(image)
  if name in ('jpeg', 'png') and image.format not in ('WEBP', 'AVIF'):
    assert image.info['dpi'] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize('name', ['jpeg', 'png', 'webp', 'avif', 'tiff'])
def test_metadata_are_stripped(name):
  data = written(hostile.sound(name), metadata=Metadata())
  image = opened(data)
  assert not [
    tag for tag in (271, 306, 0x8769, 0x8825) if tag in image.getexif()
  ]
  assert 'icc_profile' not in image.info
  assert not xmp_of(image)
  for secret in (b'Maker', b'2024:01:02'):
    assert secret not in data


def camera_exif(order):
  """EXIF as a camera writes it: a note, and a thumbnail at the end."""
  mark = {'<': b'II', '>': b'MM'}[order]

  def entry(tag, kind, count, value):
    short = kind == 3
    packed = struct.pack(
      f'{order}HH' if short else f'{order}I',
      *((value, 0) if short else (value,)),
    )
    return struct.pack(f'{order}HHI', tag, kind, count) + packed

  camera, note = 8 + 2 + 3 * 12 + 4, 200
  small, thumbnail = 300, 400
  first = [
    entry(
      0x010F,
      2,
      4,
      int.from_bytes(b'Cam\0', 'little' if order == '<' else 'big'),
    ),
    entry(0x0112, 3, 1, 8),
    entry(0x8769, 4, 1, camera),
  ]
  second = [
    entry(0x927C, 7, len(NOTE), note),
    entry(0xA002, 3, 1, 48),
    entry(0xA003, 3, 1, 36),
  ]
  third = [
    entry(0x0201, 4, 1, thumbnail),
    entry(0x0202, 4, 1, len(THUMBNAIL)),
  ]

  def directory(entries, following):
    count = struct.pack(f'{order}H', len(entries))
    return count + b''.join(entries) + struct.pack(f'{order}I', following)

  data = bytearray(thumbnail)
  head = mark + struct.pack(f'{order}HI', 42, 8)
  for place, block in (
    (0, head + directory(first, small)),
    (camera, directory(second, 0)),
    (note, NOTE),
    (small, directory(third, 0)),
  ):
    data[place : place + len(block)] = block
  return bytes(data) + THUMBNAIL


@pytest.mark.parametrize('order', '<>')
def test_a_cameras_exif_stays_where_it_is(order):
  exif = camera_exif(order)
  file = io.BytesIO()
  hostile.smooth().save(file, 'JPEG', exif=b'Exif\0\0' + exif)
  data = written(file.getvalue())
  found = opened(data).info['exif'].removeprefix(b'Exif\0\0')
  # Notes refer to places: nothing moves, and the thumbnail is gone.
  assert found.index(NOTE) == exif.index(NOTE)
  assert len(found) == len(exif) - len(THUMBNAIL)
  assert THUMBNAIL not in data
  image = opened(data).getexif()
  assert (image[0x010F], image[0x0112]) == ('Cam', 1)
  camera = image.get_ifd(0x8769)
  assert (camera[0xA002], camera[0xA003]) == (36, 48)
  assert not image.get_ifd(1)  # the directory of the thumbnail


def test_exif_of_a_tiff_moves_to_other_formats():
  first = written(hostile.sound('jpeg'), format='TIFF')
  for format in ('', 'JPEG', 'PNG'):
    exif = opened(written(first, format=format)).getexif()
    assert exif[271] == 'Maker'
    assert exif.get_ifd(0x8769)[0x9003] == '2024:01:02 03:04:05'
    assert exif.get_ifd(0x8825)[2] == (47.0, 22.0, 30.0)


def test_a_name_that_is_not_ascii_survives_a_tiff():
  exif = Image.Exif()
  exif[315] = 'Jürgen'.encode()
  file = io.BytesIO()
  hostile.smooth().save(file, 'JPEG', exif=exif)
  artist = opened(written(file.getvalue(), format='TIFF')).getexif()[315]
  assert artist.encode('latin-1').decode() == 'Jürgen'


def test_damaged_exif_is_left_out_and_noticed():
  file = io.BytesIO()
  broken = b'Exif\0\0II*\0\xff\xff\xff\x7f' + bytes(40)
  hostile.smooth().save(file, 'JPEG', exif=broken)
  picture = open_picture(file.getvalue(), 'x')
  frames = list(picture.frames())
  metadata = frames[0].metadata
  assert lost(picture, metadata) == 'damaged EXIF'
  assert 'exif' not in opened(encode(picture, frames, metadata)).info


def test_what_is_too_long_for_a_jpeg_is_left_out():
  exif = Image.Exif()
  exif[271], exif[0x9286] = 'Maker', b'x' * 70_000
  file = io.BytesIO()
  hostile.smooth().save(file, 'PNG', exif=exif)
  assert opened(written(file.getvalue())).getexif()[271] == 'Maker'
  data = written(file.getvalue(), format='JPEG')
  assert not opened(data).getexif()
  picture = open_picture(file.getvalue(), 'x')
  metadata = next(picture.frames()).metadata
  assert not lost(picture, metadata)
  assert lost(picture, metadata, 'JPEG') == 'EXIF, which JPEG cannot hold'


def gray_profile():
  """What says that it is an ICC profile for gray."""
  profile = bytearray(hostile.profile())
  profile[16:20] = b'GRAY'
  return bytes(profile)


@pytest.mark.parametrize(
  ('source', 'format', 'kept'),
  [
    ('L', 'JPEG', True),
    ('L', 'PNG', True),
    ('L', 'TIFF', True),
    ('L', 'WEBP', False),
    ('LA', 'PNG', True),
    ('LA', 'JPEG', True),
    ('LA', 'WEBP', False),
    ('LA', 'TIFF', False),
  ],
)
def test_the_profile_of_gray_stays_with_gray(source, format, kept):
  file = io.BytesIO()
  gray = hostile.smooth().convert(source)
  gray.save(file, 'PNG', icc_profile=gray_profile())
  picture = open_picture(file.getvalue(), 'x')
  frames = list(picture.frames())
  metadata = frames[0].metadata
  image = opened(encode(picture, frames, metadata, format=format))
  assert (image.mode in ('L', 'LA')) == kept
  assert image.info.get('icc_profile') == (gray_profile() if kept else None)
  loss = '' if kept else f'the colour profile, which {format} cannot hold'
  assert lost(picture, metadata, format, len(source)) == loss


def test_a_png_keeps_its_colours_without_a_profile():
  info = PngImagePlugin.PngInfo()
  info.add(b'gAMA', struct.pack('>I', 100_000))
  info.add(b'cHRM', struct.pack('>8I', *range(10_000, 90_000, 10_000)))
  info.add(b'sRGB', b'\1')
  for image in (hostile.smooth(), Image.fromarray(np.zeros((4, 5), np.uint16))):
    file = io.BytesIO()
    image.save(file, 'PNG', pnginfo=info)
    before, after = opened(file.getvalue()), opened(written(file.getvalue()))
    for key in ('gamma', 'chromaticity', 'srgb'):
      assert after.info[key] == before.info[key]
