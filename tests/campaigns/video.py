"""Damaged video clips through derain.

  python -m tests.campaigns.video --count 200

Processes of the command read some each. Each clip becomes a file that can be
played, or one line that names it; nothing half-written is left, and no process
crashes or hangs. What breaks this is kept in the folder --keep.
"""

import argparse
import collections
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import av

from tests.helpers import video_clips

_CLIPS, _SECONDS = 20, 300  # of one process
_PROGRAM = """
import sys
import mixdtp_jax
from mixdtp_jax.cli.main import main
class Network:
  def check(self, height, width, kept):
    if height * width > 1_000_000:
      raise ValueError('there is too little memory')
  def restore(self, pixels, progress=None):
    return ~pixels
mixdtp_jax.load = lambda *_, **__: Network()
main('derain')
"""


def derain(folder, paths):
  """Restores clips; returns how many it restored.

  Raises:
    AssertionError, subprocess.TimeoutExpired: something is wrong.
  """
  target = folder / 'out'
  run = subprocess.run(
    [sys.executable, '-c', _PROGRAM, *paths, '-o', f'{target}/', '--json'],
    capture_output=True,
    text=True,
    timeout=_SECONDS,
  )
  assert run.returncode in (0, 1), (run.returncode, run.stderr[-2000:])
  assert 'Traceback' not in run.stderr, run.stderr[-2000:]
  lines = [json.loads(line) for line in run.stdout.splitlines()]
  assert {line['input'] for line in lines} == set(map(str, paths)), lines
  errors = run.stderr.splitlines()
  for line in lines:
    if line['status'] == 'failed':
      assert f'error: {line["error"]}' in errors, (line, errors)
      name = pathlib.Path(line['input']).name
      assert name in line['error'] and '\n' not in line['error'], line
  written = {line['output'] for line in lines if line['status'] == 'restored'}
  there = target.iterdir() if target.exists() else ()
  assert {str(path) for path in there} == written
  for path in written:
    with av.open(path) as container:
      assert sum(1 for _ in container.decode(video=0))
  shutil.rmtree(target, ignore_errors=True)
  return len(written)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--count', type=int, default=200)
  parser.add_argument('--seed', type=int, default=1)
  parser.add_argument('--keep', type=pathlib.Path, default='broken')
  args = parser.parse_args()
  found = collections.Counter()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    paths = list(video_clips.damaged(folder, args.count, args.seed))
    for start in range(0, len(paths), _CLIPS):
      some = paths[start : start + _CLIPS]
      try:
        found['restored'] += derain(folder, some)
      except (AssertionError, subprocess.TimeoutExpired) as error:
        found['broken'] += 1
        print(f'clips {start} to {start + len(some) - 1}: {error}'[:3000])
        args.keep.mkdir(exist_ok=True)
        for path in some:
          shutil.copy(path, args.keep)
        shutil.rmtree(folder / 'out', ignore_errors=True)
  print(
    f'{len(paths):,} clips: {found["restored"]:,} restored, '
    f'{found["broken"]:,} faults'
  )
  return 1 if found['broken'] else 0


if __name__ == '__main__':
  sys.exit(main())
