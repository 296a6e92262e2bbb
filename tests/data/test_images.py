import base64
import io
import os
import pathlib
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mixdtp_jax.data import images
from mixdtp_jax.data.images import ImageError
from tests.campaigns import images as campaign
from tests.helpers import hostile

# What EXIF's orientations mean, by Pillow's own methods.
TURNS = {
  1: None,
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


def noise(height=10, width=14, seed=0):
  random = np.random.default_rng(seed)
  return Image.fromarray(
    random.integers(0, 256, (height, width, 3)).astype(np.uint8)
  )


def encoded(image, format='PNG', **options):
  file = io.BytesIO()
  image.save(file, format=format, **options)
  return file.getvalue()


def exif(orientation):
  found = Image.Exif()
  found[0x0112] = orientation
  return found


@pytest.mark.parametrize('how', TURNS)
@pytest.mark.parametrize('format', ['PNG', 'TIFF', 'WEBP'])
def test_every_orientation_is_applied(format, how):
  image = noise()
  options = {'lossless': True} if format == 'WEBP' else {}
  data = encoded(image, format, exif=exif(how), **options)
  upright = image if TURNS[how] is None else image.transpose(TURNS[how])
  found = images.read_image(data, 'x')
  np.testing.assert_array_equal(found, np.asarray(upright))
  assert images.image_shape(data, 'x') == found.shape[:2]


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
  plain, marked = encoded(noise()), encoded(noise(), exif=exif(6))
  place = marked.index(b'eXIf') - 4
  (length,) = struct.unpack_from('>I', marked, place)
  chunk = marked[place : place + 12 + length]
  path = tmp_path / 'x.png'
  path.write_bytes(plain[:-12] + chunk + plain[-12:])
  assert images.image_shape(path) == (14, 10)
  upright = noise().transpose(TURNS[6])
  np.testing.assert_array_equal(images.read_image(path), np.asarray(upright))


def test_xmp_turns_where_there_is_no_exif():
  xmp = b'<x:xmpmeta><a tiff:Orientation="3"/></x:xmpmeta>'
  data = encoded(noise(), 'WEBP', lossless=True, xmp=xmp)
  upright = noise().transpose(TURNS[3])
  np.testing.assert_array_equal(images.read_image(data), np.asarray(upright))


def test_damaged_exif_leaves_the_pixels():
  data = encoded(noise(), 'JPEG', exif=b'Exif\0\0II*\0\xff\xff\xff\x7f' * 9)
  assert images.read_image(data, 'x').shape == (10, 14, 3)


def test_the_shape_of_a_png_needs_no_pixels(tmp_path):
  path = tmp_path / 'x.png'
  path.write_bytes(encoded(noise())[:-100])
  assert images.image_shape(path) == (10, 14)
  with pytest.raises(ImageError, match=r'x\.png cannot be decoded'):
    images.read_image(path)
  text = PngImagePlugin.PngInfo()
  text.add_itxt('XML:com.adobe.xmp', '<a tiff:Orientation="6"/>', zip=True)
  path.write_bytes(encoded(noise(), pnginfo=text)[:-100])
  assert images.image_shape(path) == (14, 10)


def wide_png():
  samples = np.zeros((4, 5, 3), '>u2')
  rows = b''.join(b'\0' + row.tobytes() for row in samples)
  chunks = (
    (b'IHDR', struct.pack('>IIBBBBB', 5, 4, 16, 2, 0, 0, 0)),
    (b'IDAT', zlib.compress(rows)),
    (b'IEND', b''),
  )
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(data))
    + kind
    + data
    + struct.pack('>I', zlib.crc32(kind + data))
    for kind, data in chunks
  )


# 64x64 pixels of 10 bits; Pillow gives 8 of them.
_AVIF = base64.b64decode(
  'AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAAD5bWV0YQAAAAAAAAAvaGRscgAAAA'
  'AAAAAAcGljdAAAAAAAAAAAAAAAAFBpY3R1cmVIYW5kbGVyAAAAAA5waXRtAAAAAAABAAAAHmls'
  'b2MAAAAARAAAAQABAAAAAQAAASEAAAAdAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYX'
  'YwMUNvbG9yAAAAAGppcHJwAAAAS2lwY28AAAAUaXNwZQAAAAAAAABAAAAAQAAAABBwaXhpAAAA'
  'AAMKCgoAAAAMYXYxQ4EATAAAAAATY29scm5jbHgAAgACAAIAAAAAF2lwbWEAAAAAAAAAAQABBA'
  'ECgwQAAAAlbWRhdAoKAAAAAq//jV84CDIPEAC6AgssUUEAAAgAldCC'
)


@pytest.mark.parametrize('read', [images.read_image, images.image_shape])
def test_data_sets_refuse_16_bits(read):
  wide = wide_png()
  with pytest.raises(ImageError, match='street .* more than 8 bits .*convert'):
    read(wide, 'street')
  with pytest.raises(ImageError, match='street has more than 8 bits'):
    read(_AVIF, 'street')
  gray = Image.fromarray(np.zeros((4, 5), np.uint16))
  with pytest.raises(ImageError, match='street .* more than 8 bits'):
    read(encoded(gray), 'street')


def test_data_sets_refuse_animations():
  frames = {'save_all': True, 'append_images': [noise(seed=1)]}
  for format in ('GIF', 'PNG', 'WEBP', 'TIFF'):
    data = encoded(noise(), format, **frames)
    with pytest.raises(ImageError, match='^dance has several frames'):
      images.read_image(data, 'dance')


@pytest.mark.parametrize('format', ['BMP', 'TIFF', 'WEBP'])
def test_reads_other_formats(format):
  options = {'lossless': True} if format == 'WEBP' else {}
  data = encoded(noise(), format, **options)
  np.testing.assert_array_equal(images.read_image(data), np.asarray(noise()))


def test_an_mpo_is_one_jpeg():
  photo = noise(32, 48)
  both = {'save_all': True, 'append_images': [noise(32, 48, seed=1)]}
  found = images.read_image(encoded(photo, 'MPO', **both))
  alone = Image.open(io.BytesIO(encoded(photo, 'JPEG')))
  np.testing.assert_array_equal(found, np.asarray(alone))


def test_reads_a_png_with_a_long_text():
  text = PngImagePlugin.PngInfo()
  text.add_text('Comment', 'rain ' * 500_000, zip=True)
  data = encoded(noise(), pnginfo=text)
  np.testing.assert_array_equal(images.read_image(data), np.asarray(noise()))


def huge_png():
  """A sound header of 20,000 x 20,000 pixels before the pixels of a few."""
  header = b'IHDR' + struct.pack('>IIBBBBB', 20_000, 20_000, 8, 2, 0, 0, 0)
  check = struct.pack('>I', zlib.crc32(header))
  small = encoded(noise())
  return small[:12] + header + check + small[33:]


def test_a_huge_image_is_named_with_its_size(tmp_path, monkeypatch):
  path = tmp_path / 'huge.png'
  path.write_bytes(huge_png())
  for limit in (Image.MAX_IMAGE_PIXELS, None):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
    with pytest.raises(ImageError, match=r'huge\.png has .*pixels.* smaller'):
      images.read_image(path)


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='there are no pipes')
def test_does_not_wait_for_a_pipe(tmp_path):
  os.mkfifo(tmp_path / 'x.png')
  failed = []

  def read():
    for use in (images.read_image, images.image_shape, images.encoded):
      try:
        use(tmp_path / 'x.png')
      except ImageError as error:
        failed.append(str(error))

  thread = threading.Thread(target=read, daemon=True)
  thread.start()
  thread.join(20)
  assert len(failed) == 3
  assert all('x.png is not a file' in message for message in failed)
  with pytest.raises(ImageError, match='is not a file'):
    images.read_image(pathlib.Path('/dev/zero'))
  with pytest.raises(ImageError, match='is not a file'):
    images.read_image(tmp_path)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(ImageError, match=r'a\.png cannot be read: No such file'):
    images.image_shape(tmp_path / 'a.png')


def test_strange_names_are_shown_on_one_line():
  assert images.name_of(pathlib.Path('rain\nö.png')) == "'rain\\n\\xf6.png'"
  assert images.name_of(pathlib.Path(os.fsdecode(b'a\xff.png'))).isascii()
  assert images.name_of(pathlib.Path('Straße 1.png')) == 'Straße 1.png'


def test_heic_says_what_is_missing(monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'pillow_heif', None)
  images.formats.cache_clear()
  data = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(100)
  with pytest.raises(ImageError, match='beach is HEIC.*-m pip install pillow'):
    images.read_image(data, 'beach')
  images.formats.cache_clear()


@pytest.mark.filterwarnings('ignore')  # Pillow's, of damaged tags
def test_damaged_images_are_read_or_named():
  counts = [campaign.read(data) for _, data in campaign.damaged(200, 0)]
  assert 0 in counts and len(campaign.READERS) in counts


@pytest.mark.parametrize('end', [0, 7, 8, 20, 30])
def test_a_header_that_is_cut_short_is_named(tmp_path, end):
  path = tmp_path / 'cut.png'
  path.write_bytes(hostile.sound('png')[:end])
  for read in (images.image_shape, images.read_image):
    with pytest.raises(
      ImageError, match=r'cut\.png (cannot be decoded|is empty)'
    ):
      read(path)
