"""How clips are read: which frames, when, and what is refused."""

import pathlib
import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from mixdtp_jax.restoration import clips
from tests.conftest import REPOSITORY
from tests.helpers import video_clips
from tests.helpers.video_clips import files, frames, make, packets, psnr


def turn(path, matrix):
  """Writes a display matrix (a, b, c, d) into an MP4 file."""
  data = bytearray(path.read_bytes())
  place = data.index(b'tkhd') + 44  # version 0: after times, layer, volume
  a, b, c, d = (np.array(each * 65536, '>i4').tobytes() for each in matrix)
  one = np.array(1 << 30, '>i4').tobytes()
  data[place : place + 36] = b''.join(
    [a, b, bytes(4), c, d, bytes(4), bytes(8), one]
  )
  path.write_bytes(data)


@pytest.mark.parametrize(
  ('matrix', 'turned'),
  [
    ((0, 1, -1, 0), lambda p: np.rot90(p, -1, (1, 2))),  # clockwise
    ((0, -1, 1, 0), lambda p: np.rot90(p, 1, (1, 2))),
    ((-1, 0, 0, -1), lambda p: p[:, ::-1, ::-1]),
    ((-1, 0, 0, 1), lambda p: p[:, :, ::-1]),
  ],
)
def test_turned_clips_are_written_upright(derain, matrix, turned):
  turn(make(pathlib.Path('a.mp4')), matrix)
  assert derain('a.mp4')[0] == 0
  result = frames('a_derained.mp4')
  assert psnr(result, 255 - turned(frames('a.mp4'))) > 30
  with clips.opened('a_derained.mp4') as container:
    frame = next(container.decode(video=0))
    assert frame.rotation == 0
    assert 'DISPLAYMATRIX' not in {d.type.name for d in frame.side_data}


@pytest.mark.parametrize('angle', [20, 45])
def test_other_angles_are_refused(derain, angle):
  c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
  turn(make(pathlib.Path('a.mp4')), (c, s, -s, c))
  status, _, err = derain('a.mp4')
  assert status == 1
  assert 'a.mp4 is shown turned by no multiple of 90 degrees' in err


@pytest.mark.parametrize(
  ('name', 'options', 'rate'),
  [
    ('a.h264', {}, 25),  # there are no times, and no rate
    ('a.avi', {'b_frames': True}, 10),
  ],
)
def test_a_part_of_a_clip_without_times(derain, name, options, rate):
  make(name, range(100), audio=None, **options)
  status, _, err = derain(name, '--start', 1, '--end', 2)
  assert (status, err) == (0, '')
  times = [Fraction(n, rate) for n in range(rate)]
  found = packets('a_derained.mkv')
  assert [round(p[0], 3) for p in found] == [round(t, 3) for t in times]


def test_small_and_late_clips(derain):
  make('a.ts', audio=None)  # of few packets
  make('b.mkv', range(1000, 1008), audio=None)  # begins after 100 seconds
  status, _, err = derain('a.ts', 'b.mkv')
  assert (status, err) == (0, '2 restored\n')
  for name, result in ('a.ts', 'a_derained.ts'), ('b.mkv', 'b_derained.mkv'):
    assert [p[:2] for p in packets(result)] == [p[:2] for p in packets(name)]


def test_the_aspect_of_a_container(derain):
  """ProRes has none of its own."""
  aspect = {'sample_aspect_ratio': Fraction(4, 3)}
  make('a.mov', codec='prores_ks', format='yuv422p10le', tags=aspect)
  status, _, err = derain('a.mov')
  assert (status, err) == (0, '')
  with clips.opened('a_derained.mov') as container:
    assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_a_clip_that_the_memory_does_not_hold_is_not_decoded(derain):
  make('b.mkv', range(30))
  pathlib.Path('b.mkv').write_bytes(pathlib.Path('b.mkv').read_bytes()[:9000])

  def check(height, width, kept):
    raise ValueError(f'{height} x {width} needs more memory')

  derain.network.check = check
  status, _, err = derain('b.mkv')
  assert status == 1
  assert err == 'error: b.mkv cannot be restored: 48 x 64 needs more memory\n'


def test_what_is_not_kept_is_refused_by_name(derain):
  make('pq.mp4', format='yuv420p10le', tags={'color_trc': 16})
  make('hlg.mp4', format='yuv420p10le', tags={'color_trc': 18})
  make('deep.mkv', codec='ffv1', format='yuv444p12le')
  make('clear.mkv', codec='ffv1', format='yuva420p')
  clear = {'codec': 'libvpx-vp9', 'format': 'yuva420p', 'audio': None}
  make('light.webm', options={'auto-alt-ref': '0'}, **clear)
  before = files()
  names = ('pq.mp4', 'hlg.mp4', 'deep.mkv', 'clear.mkv', 'light.webm')
  status, _, err = derain(*names)
  lines = err.splitlines()
  assert status == 1
  assert lines[5:] == ['5 failed'], err
  assert 'pq.mp4 is HDR (PQ)' in lines[0]
  assert 'hlg.mp4 is HDR (HLG)' in lines[1]
  assert 'deep.mkv has 12 bits for each sample' in lines[2]
  assert 'clear.mkv is transparent in places' in lines[3]
  assert 'light.webm is transparent in places' in lines[4]
  assert files() == before


def test_damaged_clips_are_one_line_and_no_file(derain):
  shorter = {}
  for ending, options in video_clips.KINDS.items():
    if ending in video_clips.STATE_NO_LENGTH:
      continue
    clip = pathlib.Path(f'sound.{ending}')
    options = {'size': (96, 128)} | options
    data = make(clip, range(40), **options).read_bytes()
    for part in (0.3, 0.6, 0.8):
      shorter[f'{part}{ending}.{ending}'] = data[: int(part * len(data))]
  shorter |= {'empty.mp4': b'', 'text.mkv': b'no video at all\n' * 99}
  for name, data in shorter.items():
    pathlib.Path(name).write_bytes(data)
  before = files()
  status, out, err = derain(*shorter)
  assert (status, out) == (1, '')
  lines = err.splitlines()
  assert lines.pop() == f'{len(shorter)} failed', err
  for name, line in zip(shorter, lines, strict=True):
    assert line.startswith(f'error: {name} ')
    assert re.search('damaged|cut short|is empty', line), line
  assert files() == before


@pytest.mark.slow
def test_two_hundred_mutated_clips(tmp_path):
  """Each is restored or one line, nothing is half-written, nothing hangs."""
  program = [sys.executable, '-m', 'tests.campaigns.video', '--count=200']
  run = subprocess.run(
    [*program, f'--keep={tmp_path / "broken"}'],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert run.returncode == 0, run.stdout + run.stderr
  found = re.fullmatch(r'200 clips: (\d+) restored, 0 faults\n', run.stdout)
  assert 50 < int(found[1]) < 190
