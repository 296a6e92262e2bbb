"""Restoring a clip: stopped and continued, by one process, with its flicker."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

import mixdtp_jax
from mixdtp_jax.restoration.video import warping_error
from tests.conftest import REPOSITORY
from tests.helpers import video_clips
from tests.helpers.video_clips import files, frames, make, packets, psnr


def test_it_goes_on_from_the_last_whole_segment(derain):
  make('a.mp4', times=range(60))
  _, whole, _ = derain('a.mp4', '-o', 'whole.mp4', '--json')
  derain.network.seen.clear()
  derain.network.stop_after = 55
  assert derain('a.mp4')[0] == 130
  assert files() == {'a.mp4', 'whole.mp4', '.a_derained.mp4.parts'}
  derain.network.seen.clear()
  # A machine that went down may leave a damaged file.
  with open('.a_derained.mp4.parts/000001.npz', 'r+b') as file:
    file.truncate(900)
  status, out, err = derain('a.mp4', '--json')
  assert (status, err) == (0, 'a.mp4: 24 frames are restored already\n')
  for fact in ('frames', 'flicker_before', 'flicker_after'):
    assert json.loads(out)[fact] == json.loads(whole)[fact]
  assert len(derain.network.seen) == 36
  assert packets('a_derained.mp4') == packets('whole.mp4')
  assert files() == {'a.mp4', 'whole.mp4', 'a_derained.mp4'}


def test_work_of_other_options_does_not_count(derain):
  make('a.mp4', times=range(30))
  derain.network.stop_after = 28
  assert derain('a.mp4')[0] == 130
  derain.network.seen.clear()
  derain.network.stop_after = None
  status, _, err = derain('a.mp4', '--crf', 30)
  assert (status, err, len(derain.network.seen)) == (0, '', 30)


def test_a_file_that_appears_meanwhile_is_kept(derain):
  make('a.mp4')
  restore = derain.network.restore

  def slow(pixels):
    pathlib.Path('a_derained.mp4').write_text('mine')
    return restore(pixels)

  derain.network.restore = slow
  status, _, err = derain('a.mp4')
  assert (status, err) == (
    1,
    'error: a_derained.mp4 exists by now: --overwrite replaces it\n',
  )
  assert pathlib.Path('a_derained.mp4').read_text() == 'mine'
  # Nothing is restored a second time.
  _, out, err = derain('a.mp4', '--overwrite')
  assert 'flicker between frames' in out
  assert err == 'a.mp4: 8 frames are restored already\n'
  assert files() == {'a.mp4', 'a_derained.mp4'}


def test_two_processes_do_not_write_one_file(derain):
  make('a.mp4')
  holder = """
import pathlib, sys
from mixdtp_jax.runtime.files import lock
with lock(pathlib.Path('.a_derained.mp4.parts/lock')):
  print('held', flush=True)
  sys.stdin.read()
"""
  with subprocess.Popen(
    [sys.executable, '-c', holder],
    env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as other:
    assert other.stdout.readline() == b'held\n'
    status, _, err = derain('a.mp4')
  assert (status, len(derain.network.seen)) == (1, 0)
  assert 'error: a_derained.mp4 is being written by another process' in err
  assert derain('a.mp4')[0] == 0
  assert files() == {'a.mp4', 'a_derained.mp4'}


# The command, killed when it begins to write the third part.
KILLED = r"""
from tests.helpers import kills
from mixdtp_jax.cli import main

kills.signal_at(r'000002\.npz$')
main.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='signals are different there')
def test_a_kill_as_a_user_meets_it(tmp_path, tiny_weights):
  make(tmp_path / 'a.mp4', times=range(80))  # four parts
  words = ('derain', 'a.mp4', '--weights', str(tiny_weights))
  options = {
    'cwd': tmp_path,
    'env': os.environ
    | {'PYTHONPATH': str(REPOSITORY), 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'},
    'capture_output': True,
    'text': True,
    'timeout': 300,
  }
  killed = subprocess.run([sys.executable, '-c', KILLED, *words], **options)
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  parts = tmp_path / '.a_derained.mp4.parts'
  assert sorted(path.name for path in parts.glob('*.npz')) == [
    '000000.npz',
    '000001.npz',
  ]
  assert not (tmp_path / 'a_derained.mp4').exists()
  run = subprocess.run([sys.executable, '-m', 'mixdtp_jax', *words], **options)
  assert run.returncode == 0, run.stderr
  assert '48 frames are restored already' in run.stderr
  assert not parts.exists()
  old, new = (packets(tmp_path / n) for n in ('a.mp4', 'a_derained.mp4'))
  assert [p[:2] for p in new] == [p[:2] for p in old]
  first = mixdtp_jax.load(tiny_weights)(frames(tmp_path / 'a.mp4')[0])
  assert psnr(frames(tmp_path / 'a_derained.mp4')[0], first) > 25


def test_flicker(derain):
  noise = np.random.default_rng(0).normal(0, 25, (8, 48, 64, 3))

  def rainy(number, height, width, dtype):
    clean = video_clips.moving(0, height, width, dtype)
    return (clean + noise[number]).clip(0, 255).astype(dtype)

  make('a.mp4', frame=rainy)
  derain.network.restore = lambda pixels: pixels // 4
  status, out, _ = derain('a.mp4', '--json')
  line = json.loads(out)
  assert line['frames'] == 8
  assert 0.02 < line['flicker_before'] < 0.2
  assert line['flicker_after'] == pytest.approx(
    line['flicker_before'] / 4, rel=0.2
  )
  assert line['frames_per_second'] > 0


def test_the_warping_error_follows_motion():
  random = np.random.default_rng(0)
  texture = np.kron(random.random((30, 40, 3)), np.ones((8, 8, 1)))
  for _ in range(3):  # smooth
    texture = sum(np.roll(texture, n, a) for n in (-2, 2) for a in (0, 1)) / 4
  wide = (texture * 65535).astype(np.uint16)
  before, after = wide[:200, 4:300], wide[:200, :296]
  plain = np.abs(after - before.astype(float)).mean() / 65535
  assert plain > 0.02
  assert warping_error(before, after) < plain / 5
  assert warping_error(before, before) == 0
