"""`mixdtp derain` in this process, with a stand-in for the network."""

import io
import json
import os
import pathlib
import re
import struct
import sys

import numpy as np
import pytest
from PIL import Image

import mixdtp_jax
from mixdtp_jax.data import images
from mixdtp_jax.restoration import restorer, sixteen_bits
from mixdtp_jax.runtime.files import _writing
from tests.campaigns import images as campaign
from tests.helpers import hostile
from tests.helpers.derain import put


def pixels(path):
  return np.asarray(Image.open(path))


def files():
  return {
    path.as_posix() for path in pathlib.Path().rglob('*') if path.is_file()
  }


def test_a_picture(derain):
  put('holiday.png')
  status, out, err = derain('holiday.png')
  assert status == 0, err
  assert files() == {'holiday.png', 'holiday_derained.png'}
  assert out.startswith('holiday.png -> holiday_derained.png: 36x48 pixels in ')
  rainy = np.asarray(hostile.smooth().transpose(Image.Transpose.ROTATE_270))
  np.testing.assert_array_equal(pixels('holiday_derained.png'), 255 - rainy)
  (weights, options) = derain.loaded[0]
  assert weights == 'general'
  assert options == {'memory': None, 'scratch': None, 'dtype': 'float32'}


def test_a_folder_twice(derain):
  put('in/a.jpg', 'jpeg')
  put('in/x/b.png', 'png_16_3')
  put('in/notes.txt')
  status, out, err = derain('in', '-o', 'out', '--memory', '2GB')
  assert status == 0, err
  assert out.count('\n') == 2
  assert derain.loaded[0][1]['memory'] == 2_000_000_000
  assert {n for n in files() if n.startswith('out')} == {
    'out/a.jpg',
    'out/x/b.png',
  }
  times = [os.stat(f).st_mtime_ns for f in ('out/a.jpg', 'out/x/b.png')]
  put('in/c.png')
  status, out, err = derain('in', '-o', 'out')
  assert status == 0
  assert 'in/c.png -> out/c.png' in out
  assert '2 kept as they were: --overwrite restores them again' in err
  assert times == [os.stat(f).st_mtime_ns for f in ('out/a.jpg', 'out/x/b.png')]
  status, out, err = derain('in', '-o', 'out', '--overwrite')
  assert out.count('\n') == 3
  assert '3 restored' in err
  # With nothing to do no network is loaded.
  loaded = len(derain.loaded)
  status, out, err = derain('in', '-o', 'out')
  assert (status, out) == (0, '')
  assert '3 kept as they were' in err
  assert len(derain.loaded) == loaded
  status, out, err = derain('in', '-o', 'out', '--weights', 'genral')
  assert status == 1
  assert 'genral: no weights there' in err


def test_bad_files_are_a_line_each_and_the_others_go_on(derain):
  put('in/a.png')
  put('in/b.jpg', data=hostile.sound('jpeg')[:900])
  put('in/c.webp', data=b'no picture')
  put('in/d.gif', 'gif')
  status, out, err = derain('in', '-o', 'out')
  assert status == 1
  assert out.count('\n') == 2
  lines = err.splitlines()
  assert len(lines) == 3, err
  assert lines[0].startswith('error: in/b.jpg cannot be decoded')
  assert lines[1].startswith('error: in/c.webp cannot be decoded')
  assert lines[2] == '2 restored, 2 failed'
  assert {n for n in files() if n.startswith('out')} == {
    'out/a.png',
    'out/d.gif',
  }


def test_what_a_killed_run_left_is_removed(derain):
  put('a.png')
  left = pathlib.Path(f'{_writing()}999999999-x')
  left.mkdir()
  (left / 'a_derained.png').touch()
  assert derain('a.png')[0] == 0
  assert files() == {'a.png', 'a_derained.png'}


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='there are no pipes')
def test_pipes_and_strange_names_in_a_folder(derain):
  put('in/a.png')
  os.mkfifo('in/b.png')
  put(os.fsdecode(b'in/c\xff.png'))
  put('in/d\ne.png', data=b'no picture')
  status, out, err = derain('in', '-o', 'out')
  assert status == 1
  assert 'error: in/b.png is not a file but a folder, pipe or device' in err
  assert "error: 'in/d\\ne.png' cannot be decoded" in err
  assert "'in/c\\udcff.png' -> 'out/c\\udcff.png'" in out
  assert len(err.splitlines()) == 3
  assert os.path.exists(b'out/c\xff.png')


def test_json_lines(derain):
  put('in/a.png')
  put('in/b.png', data=b'no picture')
  put('in/c.gif', 'gif_animated')
  put('out/d.png')
  put('in/d.png')
  status, out, err = derain('in', '-o', 'out', '--json')
  assert status == 1
  lines = {line['input']: line for line in map(json.loads, out.splitlines())}
  assert lines['in/d.png']['status'] == 'skipped'
  assert lines['in/b.png']['status'] == 'failed'
  assert lines['in/b.png']['error'].startswith('in/b.png cannot')
  found = lines['in/a.png']
  assert found['status'] == 'restored'
  assert (found['output'], found['width'], found['height']) == (
    'out/a.png',
    36,
    48,
  )
  assert found['seconds'] > 0
  assert found['megapixels_per_second'] > 0
  assert found['peak_memory'] is None or found['peak_memory'] > 1e6
  assert lines['in/c.gif']['frames'] == 3


def test_sheets(derain):
  put('a.png')
  put('b.gif', 'gif_animated')
  put('c.png', 'png_16_4')
  status, _, err = derain('a.png', 'b.gif', 'c.png', '-o', 'out', '--compare')
  assert status == 0, err
  for name in 'abc':
    sheet = Image.open(f'out/{name}_compare.jpg')
    width = Image.open(next(pathlib.Path().glob(f'{name}.*'))).width
    assert sheet.width >= 2 * min(width, 36)
  # A sheet that is missing is made from the result, which stays.
  sheet, result = pathlib.Path('out/a_compare.jpg'), pathlib.Path('out/a.png')
  before, time = sheet.read_bytes(), os.stat(result).st_mtime_ns
  sheet.unlink()
  loaded = len(derain.loaded)
  status, out, err = derain('a.png', '-o', 'out', '--compare')
  assert (status, err) == (0, '')
  assert out == 'a.png -> out/a_compare.jpg\n'
  assert sheet.read_bytes() == before
  assert os.stat(result).st_mtime_ns == time
  assert len(derain.loaded) == loaded  # the network is not needed
  sheet.unlink()
  pathlib.Path('out/b.gif').unlink()
  words = ('a.png', 'b.gif', '-o', 'out', '--compare', '--json')
  status, out, err = derain(*words)
  assert err == '1 restored, 1 compared with results that exist\n'
  found = {line['input']: line for line in map(json.loads, out.splitlines())}
  assert found['b.gif']['status'] == 'restored'
  assert found['a.png'] == {
    'input': 'a.png',
    'status': 'compared',
    'output': 'out/a_compare.jpg',
  }


def test_formats_quality_and_metadata(derain):
  put('a.jpg', 'jpeg')
  arguments = ('-o', 'out', '--format', 'webp', '--quality', '50')
  assert derain('a.jpg', *arguments, '--strip-metadata')[0] == 0
  image = Image.open('out/a.webp')
  assert image.format == 'WEBP'
  assert not image.getexif()
  put('b.jpg', 'jpeg')
  assert derain('a.jpg', '-o', 'two', 'b.jpg', '--overwrite', 'a.jpg')[0] == 0
  assert os.path.exists('two/a.jpg') and os.path.exists('two/b.jpg')
  assert derain('a.jpg', '-o', 'b.tif')[0] == 0
  assert Image.open('b.tif').getexif()[271] == 'Maker'
  status, _, err = derain('a.jpg', '-o', 'c.bmp')
  assert status == 0
  assert 'warning: a.jpg: written without EXIF, which BMP cannot hold' in err


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['-i', 'a.png'], '-i is no option here: give pictures and folders'),
    (['a.png', '-n', 'general'], '-n is no option here: .*--weights'),
    (['a.png', '-t', '400'], '-t is no option here: .*--memory 2GB'),
    (['a.png', '-t400'], '-t is no option here: .*--memory 2GB'),
    (['a.png', '-s', '4'], '-s is no option here: pictures keep their size'),
    (['a.png', '-g', '0'], '-g is no option here: .*CUDA_VISIBLE_DEVICES'),
    (['--input', 'a.png'], '--input is no option here'),
    (['a.png', '--tile', '0'], '--tile is no option here'),
    ([], 'the following arguments are required: INPUT'),
    (['a.png', '--quality', '0'], "'0' is not a number from 1 to 100"),
    (['a.png', '--memory', '2'], "'2' has no unit: 2GB"),
    (['a.png', '--memory', 'much'], "'much' is no amount of memory, such as"),
    (['a.png', '--format', 'jp2'], 'invalid choice'),
  ],
)
def test_words_that_do_not_fit_are_refused_in_one_line(derain, words, message):
  put('a.png')
  status, out, err = derain(*words)
  assert (status, out) == (2, '')
  assert err.count('\n') == 1
  assert re.search(message, err), err
  assert files() == {'a.png'}


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['absent.png'], 'error: absent.png: no such file or folder'),
    (['a.png', 'b/a.png', '-o', 'out'], 'would both become'),
    (['a.png', '-o', 'a.png', '--overwrite'], 'a.png would be overwritten'),
    (['-', 'a.png'], '- stands for one picture'),
    (['a.png', '-o', '-', '--json'], 'leave out --json'),
    (['-', '-o', 'c.png', '--compare'], '--compare needs a file as input'),
    (['-', '-o', 'c.png', '--format', 'jpg'], 'c.png ends like PNG'),
    ([''], 'an input or -o is empty'),
    (['a.png', '-o', ''], 'an input or -o is empty'),
    (['a.png', '-o', 'gs://bucket/dry'], 'gs://bucket/dry is a URL'),
    (['~nobody-here/a.png'], '~nobody-here/a.png: no such file'),
    (['a.png', '--scratch', 'b/a.png'], '--scratch b/a.png: not a folder'),
  ],
)
def test_what_cannot_work_is_refused_at_the_start(derain, words, message):
  put('a.png')
  put('b/a.png')
  status, out, err = derain(*words)
  assert (status, out) == (1, '')
  assert err.count('\n') == 1
  assert message in err
  assert files() == {'a.png', 'b/a.png'}


class Piped:
  """Stands for standard input or output that is a pipe."""

  def __init__(self, data=b''):
    self.buffer = io.BytesIO(data)

  def isatty(self):
    return False

  def write(self, text):
    raise AssertionError(f'{text!r} among the bytes of a picture')

  def flush(self):
    pass


def test_pipes_and_files_go_together(derain, monkeypatch):
  put('a.png')
  with monkeypatch.context() as patch:
    patch.setattr(sys, 'stdin', Piped(hostile.sound('jpeg')))
    assert derain('-', '-o', 'b.webp')[0] == 0
  assert Image.open('b.webp').format == 'WEBP'
  with monkeypatch.context() as patch:
    patch.setattr(sys, 'stdin', Piped(hostile.sound('jpeg')))
    assert derain('-', '-o', 'b.part', '--format', 'png')[0] == 0
  assert Image.open('b.part').format == 'PNG'
  with monkeypatch.context() as patch:
    out = Piped()
    patch.setattr(sys, 'stdout', out)
    assert derain('a.png', '-o', '-', '--format', 'bmp')[0] == 0
  assert Image.open(io.BytesIO(out.buffer.getvalue())).format == 'BMP'
  with monkeypatch.context() as patch:
    patch.setattr(sys, 'stdout', Piped())
    status, _, err = derain('.', '-o', '-')
  assert (status, err.partition('\n')[0]) == (
    1,
    'error: . is not a file but a folder, pipe or device',
  )
  for data, message in (
    (b'', 'error: standard input is empty'),
    (hostile.sound('png')[:200], 'error: standard input cannot be decoded'),
  ):
    with monkeypatch.context() as patch:
      patch.setattr(sys, 'stdin', Piped(data))
      status, _, err = derain('-', '-o', 'c.png')
    assert status == 1
    assert err.startswith(message)
  with monkeypatch.context() as patch:
    patch.setattr(sys, 'stdin', Piped(hostile.sound('jpeg')))
    status, _, err = derain('-', '-o', 'b.webp')
  assert (status, err) == (
    1,
    'error: b.webp exists: --overwrite replaces it\n',
  )


def test_heic_needs_its_package(derain, monkeypatch):
  put('a.png')
  monkeypatch.setitem(sys.modules, 'pillow_heif', None)
  images.formats.cache_clear()
  status, _, err = derain('a.png', '--format', 'heic')
  images.formats.cache_clear()
  assert (status, files()) == (1, {'a.png'})
  assert err.startswith('error: HEIC needs another package: ')
  assert err.endswith(' -m pip install pillow-heif\n')


def test_what_does_not_fit_is_refused_with_the_least(
  derain, monkeypatch, tiny_weights
):
  """An image, one of 179 megapixels in 36 bytes, an animation, large pages."""
  monkeypatch.setattr(mixdtp_jax, 'load', restorer.Restorer)
  monkeypatch.setattr(restorer, '_PER_KEPT_PIXEL', 10**6)
  put('a.png')
  put('b.bmp', data=b'BM' + struct.pack('<IIIIiiHHIIiiII', 99, 0, 54, 40,
    65000, 65000, 1, 24, 0, 0, 0, 0, 0, 0))  # fmt: skip
  first, *others = (hostile.smooth(seed) for seed in range(6))
  first.save('c.gif', save_all=True, append_images=others)
  put('d.tif', data=sixteen_bits.encode_tiff([pixels('a.png')] * 2, {}, True))
  words = ('.', '-o', 'dry/', '--weights', str(tiny_weights), '--memory')
  status, _, err = derain(*words, '10MB')
  assert status == 1
  least = re.findall(
    r'error: (\w)\.\w+: this image needs at least (\d+) MB of memory and may '
    r'use 10 MB: allow more with --memory',
    err,
  )
  assert [name for name, _ in least] == list('abcd'), err
  a, b, c, d = (int(size) for _, size in least)
  assert b > 65000**2 * 28 / 1e6
  assert c == a + 6 * 36 * 48 and d == a + 2 * 36 * 48
  assert files() == {'a.png', 'b.bmp', 'c.gif', 'd.tif'}


def test_what_a_format_cannot_hold_is_refused_before_the_work(derain):
  put('a.gif', 'gif_animated')
  clear = np.zeros((9, 9, 4), np.uint8)
  Image.fromarray(clear).save('b.png')
  Image.new('L', (16_384, 1)).save('c.png')
  Image.new('L', (1, 65_501)).save('d.png')

  def restore(rainy, progress):
    raise AssertionError('the network is asked')

  derain.network.restore = restore
  for name, format, message in (
    ('a.gif', 'jpg', 'a.gif has 3 frames or pages, and JPEG holds one'),
    ('b.png', 'jpg', 'b.png is partly transparent, which JPEG cannot hold'),
    ('c.png', 'webp', 'c.png has 16384x1 pixels, and WEBP holds 16,383'),
    ('d.png', 'jpg', 'd.png has 1x65501 pixels, and JPEG holds 65,500'),
  ):
    status, out, err = derain(name, '-o', 'out/', '--format', format)
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert err.startswith(f'error: {message}')
  assert not os.path.exists('out')


def test_a_file_that_appears_meanwhile_is_not_replaced(derain):
  put('a.png')
  real = derain.network.restore

  def late(rainy, progress):
    pathlib.Path('a_derained.png').write_text('of someone else')
    return real(rainy, progress)

  derain.network.restore = late
  status, _, err = derain('a.png')
  assert status == 1
  assert 'a_derained.png exists by now: --overwrite replaces it' in err
  assert pathlib.Path('a_derained.png').read_text() == 'of someone else'


def test_errors_of_the_network_name_the_picture(derain):
  put('a.png')
  put('b.png')

  def short(rainy, progress):
    raise ValueError('--memory 1MB is too little: the least is 300MB')

  derain.network.restore = short
  status, _, err = derain('a.png', 'b.png')
  assert status == 1
  assert 'error: a.png: --memory 1MB is too little' in err
  assert 'error: b.png: --memory' in err


@pytest.mark.filterwarnings('ignore')  # Pillow's, of damaged tags
def test_a_folder_of_damaged_files():
  damaged = list(campaign.damaged(200, 2))
  assert 0 < campaign.derain(damaged) < 200
