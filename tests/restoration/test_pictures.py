import io
import itertools
import re
import struct
import zlib

import numpy as np
import png
import pytest
import tifffile
from PIL import Image, ImageCms

from mixdtp_jax.data import images
from mixdtp_jax.data.images import ImageError
from mixdtp_jax.restoration import sixteen_bits
from mixdtp_jax.restoration.encoding import encode
from mixdtp_jax.restoration.metadata import Metadata
from mixdtp_jax.restoration.pictures import Frame, open_picture
from tests.helpers import hostile


def only_pixels(data):
  picture = open_picture(data, 'x')
  assert picture.count == 1
  (frame,) = picture.frames()
  return frame.pixels


def again(data, pixels=None, **options):
  """What is written of a file whose pixels are restored to `pixels`."""
  picture = open_picture(data, 'x')
  (frame,) = picture.frames()
  pixels = frame.pixels if pixels is None else pixels
  return encode(picture, [Frame(pixels)], frame.metadata, **options)


def saved(image, format, **options):
  file = io.BytesIO()
  image.save(file, format=format, **options)
  return file.getvalue()


# 16 bits, against two other libraries.


def pypng_bytes(samples, **options):
  height, width, channels = samples.shape
  writer = png.Writer(
    width,
    height,
    bitdepth=16,
    greyscale=channels < 3,
    alpha=channels in (2, 4),
    **options,
  )
  file = io.BytesIO()
  writer.write(file, samples.reshape(height, -1))
  return file.getvalue()


def pypng_array(data, channels):
  width, height, rows, info = png.Reader(bytes=data).read()
  assert (info['bitdepth'], info['planes']) == (16, channels)
  return np.vstack(list(rows)).reshape(height, width, channels)


@pytest.mark.parametrize('interlace', [False, True])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_reads_16_bit_png_exactly(channels, interlace):
  samples = hostile.wide(channels)
  pixels = only_pixels(pypng_bytes(samples, interlace=interlace))
  assert pixels.dtype == np.uint16
  np.testing.assert_array_equal(pixels, samples)


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_writes_16_bit_png_exactly(channels):
  samples = hostile.wide(channels)
  data = again(pypng_bytes(samples), samples[::-1])
  np.testing.assert_array_equal(pypng_array(data, channels), samples[::-1])


@pytest.mark.parametrize(('channels', 'clear'), [(1, (513,)), (3, (1, 2, 3))])
def test_the_transparent_colour_of_a_16_bit_png(channels, clear):
  samples = hostile.wide(channels)
  samples[3, 4] = clear
  samples[3, 5, -1] = clear[-1] + 256  # the same but for its high byte
  transparent = clear if channels == 3 else clear[0]
  pixels = only_pixels(pypng_bytes(samples, transparent=transparent))
  alpha = np.full(samples.shape[:2], 65535)
  alpha[3, 4] = 0
  np.testing.assert_array_equal(pixels[..., :-1], samples)
  np.testing.assert_array_equal(pixels[..., -1], alpha)


def tifffile_bytes(samples, **options):
  file = io.BytesIO()
  kind = 'rgb' if samples.shape[-1] in (3, 4) else 'minisblack'
  samples = samples[..., 0] if samples.shape[-1] == 1 else samples
  if samples.shape[-1] == 4:
    options['extrasamples'] = ['unassalpha']
  tifffile.imwrite(file, samples, photometric=kind, **options)
  return file.getvalue()


@pytest.mark.parametrize('byteorder', '<>')
@pytest.mark.parametrize('compression', [None, 'zlib'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_reads_16_bit_tiff_exactly(channels, compression, byteorder):
  samples = hostile.wide(channels)
  data = tifffile_bytes(samples, compression=compression, byteorder=byteorder)
  np.testing.assert_array_equal(only_pixels(data), samples)
  tiled = tifffile_bytes(samples, tile=(16, 16), byteorder=byteorder)
  np.testing.assert_array_equal(only_pixels(tiled), samples)


@pytest.mark.parametrize('compression', [None, 'zlib'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_writes_tiff_exactly(channels, dtype, compression):
  samples = hostile.wide(channels).astype(dtype)
  source = tifffile_bytes(samples, compression=compression)
  data = again(source, samples[::-1].copy())
  written = tifffile.imread(io.BytesIO(data)).reshape(samples.shape)
  np.testing.assert_array_equal(written, samples[::-1])
  with tifffile.TiffFile(io.BytesIO(data)) as file:
    assert (file.pages[0].compression == 1) == (compression is None)


def test_what_is_not_read_of_16_bits_is_named():
  samples = hostile.wide(3)
  apart = samples.transpose(2, 0, 1).copy()
  file = io.BytesIO()
  tifffile.imwrite(
    file, apart, photometric='rgb', planarconfig='separate', compression='zlib'
  )
  floats = io.BytesIO()
  tifffile.imwrite(floats, samples[..., 0].astype(np.float32))
  white = io.BytesIO()
  tifffile.imwrite(white, samples[..., 0], photometric='miniswhite')
  for data in (file, floats, white):
    with pytest.raises(ImageError, match=r'^x stores .* convert it'):
      only_pixels(data.getvalue())


def test_pages_of_16_bits_are_refused():
  with pytest.raises(ImageError, match='^x has 2 frames or pages of 16 bits'):
    list(open_picture(hostile.sound('tiff_pages'), 'x').frames())


@pytest.mark.parametrize('format', ['JPEG', 'WEBP', 'BMP'])
def test_16_bits_are_rounded_for_formats_of_8(format):
  samples = np.zeros((16, 16, 3), np.uint16)
  samples[:] = 257 * 100 + 128, 257 * 100 + 129, 65535
  data = again(sixteen_bits.encode_png(samples), format=format)
  written = np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)
  assert np.abs(written[0, 0] - (100, 101, 255)).max() <= (format == 'JPEG')


# 8 bits.


@pytest.mark.parametrize(
  ('name', 'mode'),
  [
    ('png', 'RGB'),
    ('png_gray', 'L'),
    ('png_gray_alpha', 'LA'),
    ('png_palette', 'RGB'),
    ('png_transparent', 'RGBA'),
    ('png_alpha', 'RGBA'),
    ('png_one_bit', 'L'),
    ('jpeg_gray', 'L'),
    ('webp_lossless', 'RGB'),
    ('tiff', 'RGB'),
    ('tiff_cmyk', 'RGB'),
    ('bmp', 'RGB'),
    ('bmp_palette', 'RGB'),
  ],
)
def test_formats_and_channels_stay(name, mode):
  pixels = only_pixels(hostile.sound(name))
  assert pixels.shape[2] == len(mode)
  source = Image.open(io.BytesIO(hostile.sound(name)))
  written = Image.open(io.BytesIO(again(hostile.sound(name))))
  assert written.format == source.format
  if written.format not in ('JPEG', 'WEBP'):
    assert written.mode == mode
  if written.format != 'JPEG':
    np.testing.assert_array_equal(
      np.asarray(written.convert(mode)).reshape(pixels.shape), pixels
    )


def test_a_jpeg_keeps_its_tables_and_sampling():
  photo = hostile.smooth(height=96, width=128)
  for quality, sampling in ((30, 2), (75, 1), (97, 0)):
    source = saved(photo, 'JPEG', quality=quality, subsampling=sampling)
    before, after = (
      Image.open(io.BytesIO(data)) for data in (source, again(source))
    )
    assert before.quantization == after.quantization
    assert before.layer == after.layer  # sampling of each channel
    assert abs(len(again(source)) - len(source)) < 0.1 * len(source)
    better = again(source, quality=99)
    assert len(better) > len(source)


def test_quality_and_lossless_webp():
  photo = hostile.smooth(height=96, width=128)
  lossless = saved(photo, 'WEBP', lossless=True)
  np.testing.assert_array_equal(
    only_pixels(again(lossless)), only_pixels(lossless)
  )
  lossy = saved(photo, 'WEBP', quality=60)
  assert len(again(lossy)) < len(again(lossless))
  assert len(again(lossless, quality=20)) < len(again(lossless))
  # What was lossless stays so in a format that can.
  np.testing.assert_array_equal(
    only_pixels(again(saved(photo, 'PNG'), format='WEBP')), np.asarray(photo)
  )


def test_colours_go_through_their_profile():
  photo = hostile.smooth().convert('LAB')
  lab = ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes()
  data = saved(photo, 'TIFF', icc_profile=lab)
  expected = ImageCms.profileToProfile(
    photo,
    ImageCms.createProfile('LAB'),
    ImageCms.createProfile('sRGB'),
    outputMode='RGB',
  )
  np.testing.assert_allclose(only_pixels(data), np.asarray(expected), atol=1)
  assert 'icc_profile' not in Image.open(io.BytesIO(again(data))).info


@pytest.mark.parametrize('format', ['TIFF', 'JPEG'])
def test_cmyk_goes_through_its_profile(format):
  """Without it, pure inks C, M, Y would be cyan, magenta, yellow."""
  inks = np.zeros((16, 5 * 16, 4), np.uint8)
  for number in range(4):
    inks[:, 16 * number : 16 * number + 16, number] = 255
  photo = Image.fromarray(inks, 'CMYK')
  exact = {'quality': 100} if format == 'JPEG' else {}
  data = saved(photo, format, icc_profile=hostile.printers_profile(), **exact)
  found = only_pixels(data)[8, 8::16].astype(int)
  expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0] * 3, [255] * 3]
  np.testing.assert_allclose(found, expected, atol=12)
  written = Image.open(io.BytesIO(again(data)))
  assert written.mode == 'RGB' and 'icc_profile' not in written.info
  plain = only_pixels(saved(photo, format, **exact))
  assert plain[8, 8].tolist()[0] < 8 < 200 < plain[8, 8].tolist()[2]


def test_opaque_alpha_becomes_jpeg_and_transparency_is_refused():
  clear = hostile.smooth().convert('RGBA')
  data = saved(clear, 'PNG')
  assert Image.open(io.BytesIO(again(data, format='JPEG'))).mode == 'RGB'
  clear.putpixel((3, 3), (0, 0, 0, 254))
  with pytest.raises(ImageError, match='^x is partly transparent.*JPEG'):
    again(saved(clear, 'PNG'), format='JPEG')


# Animations.

TIMES = [20, 40, 60]


def frames_of(data):
  image = Image.open(io.BytesIO(data))
  for number in range(image.n_frames):
    image.seek(number)
    yield np.asarray(image.convert('RGB')), image.info['duration']


@pytest.mark.parametrize(
  ('name', 'format'),
  [
    ('gif_animated', ''),
    ('png_animated', ''),
    ('webp_animated', ''),
    ('avif_animated', ''),
    ('gif_animated', 'PNG'),
    ('gif_animated', 'WEBP'),
    ('png_animated', 'GIF'),
  ],
)
def test_animations_keep_their_timing(name, format):
  source = hostile.sound(name)
  picture = open_picture(source, 'x')
  frames = list(picture.frames())
  assert [frame.duration for frame in frames] == TIMES
  data = encode(picture, frames, frames[0].metadata, format=format)
  written = Image.open(io.BytesIO(data))
  assert written.format == (format or Image.open(io.BytesIO(source)).format)
  if written.format != 'AVIF':
    assert written.info['loop'] == 2
  for (pixels, time), frame, expected in itertools.zip_longest(
    frames_of(data), frames, TIMES
  ):
    assert time == expected
    if written.format == 'PNG':
      np.testing.assert_array_equal(pixels, frame.pixels)
    assert np.abs(pixels.astype(int) - frame.pixels).mean() < 12


def test_a_thirtieth_of_a_second_stays_one_in_a_png():
  still, *others = (hostile.smooth(seed) for seed in range(3))
  source = bytearray(
    saved(still, 'PNG', save_all=True, append_images=others, duration=40)
  )
  for found in re.finditer(b'fcTL', source):
    place = found.start()
    source[place + 24 : place + 28] = struct.pack('>HH', 1, 30)
    check = zlib.crc32(source[place : place + 30])
    source[place + 30 : place + 34] = struct.pack('>I', check)
  picture = open_picture(bytes(source), 'x')
  data = encode(picture, list(picture.frames()), Metadata())
  for frame in open_picture(data, 'y').frames():
    assert frame.duration == pytest.approx(1000 / 30)


def test_a_gif_that_plays_once_does_so_in_other_formats():
  still, *others = (hostile.smooth(seed) for seed in range(3))
  source = saved(still, 'GIF', save_all=True, append_images=others, duration=50)
  picture = open_picture(source, 'x')
  frames = list(picture.frames())
  assert (
    'loop'
    not in Image.open(io.BytesIO(encode(picture, frames, Metadata()))).info
  )
  for format in ('PNG', 'WEBP'):
    data = encode(picture, frames, Metadata(), format=format)
    assert Image.open(io.BytesIO(data)).info['loop'] == 1


def test_a_still_before_an_animated_png_stays_one():
  still, *others = (hostile.smooth(seed) for seed in range(3))
  source = saved(
    still,
    'PNG',
    save_all=True,
    append_images=others,
    default_image=True,
    duration=[70, 90],
    loop=0,
  )
  picture = open_picture(source, 'x')
  data = encode(picture, list(picture.frames()), Metadata())
  written = Image.open(io.BytesIO(data))
  assert written.info['default_image']
  assert [f.duration for f in open_picture(data, 'y').frames()] == [0, 70, 90]


def test_pages_of_a_tiff_stay_of_their_own_sizes():
  pages = hostile.smooth(0), hostile.smooth(1, 20, 30).convert('L')
  source = saved(pages[0], 'TIFF', save_all=True, append_images=pages[1:])
  picture = open_picture(source, 'x')
  frames = list(picture.frames())
  data = encode(picture, frames, frames[0].metadata)
  written = Image.open(io.BytesIO(data))
  assert written.n_frames == 2
  for number, page in enumerate(pages):
    written.seek(number)
    np.testing.assert_array_equal(np.asarray(written), np.asarray(page))


def test_formats_of_one_frame_refuse_animations():
  picture = open_picture(hostile.sound('gif_animated'), 'dance.gif')
  with pytest.raises(ImageError, match=r'dance\.gif has 3 frames.*JPEG holds'):
    encode(picture, list(picture.frames()), Metadata(), format='JPEG')


# HEIC.


@pytest.fixture
def heic():
  """A function that saves images as HEIC."""
  pytest.importorskip('pillow_heif', reason='pillow-heif is not installed')
  images.formats()  # prepares Pillow
  return lambda *args, **options: saved(*args, 'HEIF', **options)


@pytest.mark.parametrize('format', ['', 'JPEG'])
def test_heic_keeps_its_pixels_and_metadata(heic, format):
  data = heic(hostile.smooth(), quality=95, **hostile.metadata())
  upright = hostile.smooth().transpose(Image.Transpose.ROTATE_270)
  pixels = only_pixels(data)
  assert np.abs(pixels - np.int16(upright)).mean() < 15  # fewer colours
  written = Image.open(io.BytesIO(again(data, format=format)))
  assert written.format == (format or 'HEIF')
  assert np.abs(np.int16(written) - pixels).mean() < 4
  exif = written.getexif()
  assert (exif[271], exif.get(0x0112, 1)) == ('Maker', 1)
  assert exif.get_ifd(0x8825)[2] == (47.0, 22.0, 30.0)
  assert written.info['icc_profile'] == hostile.profile()
  assert written.info['xmp'].startswith(b'<x:xmpmeta>')


def test_heic_keeps_alpha_and_gray(heic):
  for mode in ('RGBA', 'L'):
    data = heic(hostile.smooth().convert(mode), quality=95)
    assert Image.open(io.BytesIO(again(data))).mode == mode


def test_the_main_image_of_a_heic_is_taken(heic):
  others = [hostile.smooth(1), hostile.smooth(2)]
  options = {'save_all': True, 'append_images': others, 'primary_index': 1}
  data = heic(hostile.smooth(0), quality=95, **options)
  expected = only_pixels(heic(others[0], quality=95))
  np.testing.assert_array_equal(only_pixels(data), expected)
  picture = open_picture(data, 'x')
  (frame,) = picture.frames()
  np.testing.assert_array_equal(frame.pixels, expected)
  np.testing.assert_array_equal(images.read_image(data, 'x'), expected)


# Limits.


def test_too_many_pixels_are_refused_before_decoding():
  with pytest.raises(ImageError, match='^x has 48x36 pixels, more than the 99'):
    images.opened(hostile.sound('jpeg'), 'x', max_pixels=99).__enter__()
