"""`mixdtp derain` with clips among its inputs."""

import json
import pathlib
import sys

import av
import pytest

import mixdtp_jax
from mixdtp_jax.restoration import clip_files
from tests.helpers.derain import put
from tests.helpers.video_clips import files, frames, make


def test_the_codecs_of_the_command_are_those_that_there_are(derain):
  _, help, _ = derain('--help')
  assert '{' + ','.join(clip_files.CODECS) + '}' in help


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['a.mp4', '--compare'], '--compare is for pictures: leave it out'),
    (['a.png', '--crf', '3'], '--crf is for clips: leave it out'),
    (['a.mp4', '--crf', '99'], 'argument --crf: invalid choice: 99'),
    (
      ['a.mp4', '-o', 'b.mkv', '--codec', 'ffv1', '--crf', '9'],
      '--crf 9: ffv1 has none, leave it out',
    ),
    (['a.mp4', '--crf', '60'], '--crf 60: the most of h264 is 51'),
    (['a.mp4', '-o', '-'], 'a clip is written to a file'),
    (['a.mp4', '-o', 'gs://x/b.mp4'], 'gs://x/b.mp4 is a URL'),
    (['list.mkv'], 'list.mkv is no video but a list of files'),
    (['a.mp4', '-o', 'b.webm'], 'hold h264: choose --codec av1 or vp9'),
    (['a.mp4', '-o', 'b.png'], 'b.png: no video container that is written'),
    (['a.mp4', 'x/a.mp4', '-o', 'b/'], 'would both become b/a.mp4: restore'),
    (['a.mp4', '-o', 'a.mp4', '--overwrite'], 'a.mp4 would be overwritten'),
    (['a.mp4', '-o', 'b.mkv', '--end', '-1'], "'-1' is no time: write seconds"),
  ],
)
def test_options_that_do_not_fit(derain, words, message):
  make('a.mp4')
  put('a.png')
  pathlib.Path('list.mkv').write_text('ffconcat version 1.0\nfile a.mp4\n')
  pathlib.Path('x').mkdir()
  make('x/a.mp4')
  status, _, err = derain(*words)
  assert status in (1, 2)
  assert message in err
  assert not {'b.webm', 'b.mkv', 'b.png', 'a_derained.mp4', 'b'} & files()


def test_the_home_folder(derain, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  make('a.mp4')
  assert derain('~/a.mp4')[0] == 0
  assert derain('~/*.mp4', '--overwrite')[0] == 0
  assert files() == {'a.mp4', 'a_derained.mp4'}


def test_patterns_and_missing_clips(derain):
  make('a1.mp4')
  make('a[2].mp4')
  status, out, err = derain('a*.mp4', '-o', 'out', '--crf', 20)
  assert (status, err, out.count('->')) == (0, '2 restored\n', 4)
  assert {p.name for p in pathlib.Path('out').iterdir()} == files() - {'out'}
  make('a2.mp4')
  assert derain('a[2].mp4', '-o', 'b.mp4')[1].startswith('a[2].mp4 -> ')
  pathlib.Path('b.mp4').unlink()
  status, _, err = derain('b.mp4', '--crf', 20)
  assert (status, err) == (1, 'error: b.mp4: no such file or folder\n')


def test_all_clips_are_checked_before_the_first_is_restored(derain):
  make('a.mp4')
  pathlib.Path('b.mp4').write_bytes(b'no clip')
  status, out, _ = derain('a.mp4', 'b.mp4', '--json')
  told = [json.loads(line) for line in out.splitlines()]
  assert status == 1
  assert [(each['input'], each['status']) for each in told] == [
    ('b.mp4', 'failed'),
    ('a.mp4', 'restored'),
  ]


def test_what_exists_is_skipped(derain):
  make('a.mp4')
  pathlib.Path('a_derained.mp4').write_text('mine')
  status, out, err = derain('a.mp4')
  assert (status, out) == (0, '')
  assert err == '1 kept as it was: --overwrite restores it again\n'
  assert pathlib.Path('a_derained.mp4').read_text() == 'mine'
  assert derain('a.mp4', '--overwrite')[0] == 0
  assert frames('a_derained.mp4').shape == (8, 48, 64, 3)
  assert '1 left out as results of this command' in derain('*.mp4')[2]
  assert files() == {'a.mp4', 'a_derained.mp4'}
  status, out, err = derain('a.mp4', 'absent.mp4', '--overwrite')
  assert (status, out, err) == (
    1,
    '',
    'error: absent.mp4: no such file or folder\n',
  )


def test_a_device_without_memory_is_one_line(derain):
  make('a.mkv', range(2))
  make('b.mkv', range(2))

  def restore(pixels, progress=None):
    raise MemoryError('the device has too little memory')

  derain.network.restore = restore
  status, _, err = derain('a.mkv', 'b.mkv')
  assert status == 1
  assert err.splitlines()[:2] == [
    f'error: {name}.mkv: the device has too little memory' for name in 'ab'
  ]


def test_without_pyav(derain, monkeypatch):
  make('a.mp4')
  for name in ('clip_files', 'clips', 'video'):
    module = f'mixdtp_jax.restoration.{name}'
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr(mixdtp_jax.restoration, name, raising=False)
  monkeypatch.setitem(sys.modules, 'av', None)
  status, _, err = derain('a.mp4')
  assert status == 1
  assert err.startswith('error: av is not installed: ')
  assert err.endswith("[video]'\n")
  monkeypatch.setitem(sys.modules, 'av', av)
  for name in [n for n in sys.modules if n.startswith('skimage')]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'skimage', None)
  _, _, err = derain('a.mp4')
  assert err.startswith('error: skimage')
  assert err.endswith("[video]'\n")
