import contextlib
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.cli import main

ROOT = pathlib.Path(__file__).parents[2]


def start(*arguments):
  return subprocess.Popen(
    [sys.executable, '-m', 'mixdtp_jax', 'prepare', *map(str, arguments)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_stops_without_a_trace_and_starts_again(tmp_path):
  source, data = tmp_path / 'source', tmp_path / 'data'
  for split in ('train', 'test'):
    for side in ('rainy', 'clean'):
      path = source / split / side / '1.png'
      path.parent.mkdir(parents=True)
      Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(path)
  pipes = [source / f'test/{side}/2.png' for side in ('rainy', 'clean')]
  for pipe in pipes:
    os.mkfifo(pipe)  # reading it waits for a writer
  arguments = ('pairs', '--source', source, '--data_dir', data)
  process = start(*arguments)
  while not list(data.glob('pairs/incomplete*')):
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)
  process.terminate()
  while process.poll() is None:
    for pipe in pipes:
      with contextlib.suppress(OSError):  # nobody reads it
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    time.sleep(0.05)
  process.communicate()
  assert process.returncode
  assert not list(data.glob('pairs/*'))
  for pipe in pipes:
    pipe.unlink()
  process = start(*arguments)
  out, err = process.communicate()
  assert process.returncode == 0, err
  assert 'pairs: train 1, test 1, in ' in out
  assert not err


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('ddn', 'prepare ddn --source FOLDER'),
    ('rain100', "data set 'rain100' is unknown; did you mean rain100"),
  ],
)
def test_an_error_is_one_line_that_names_the_remedy(
  name, message, tmp_path, capsys
):
  assert main.run_command(['prepare', name, '--data_dir', str(tmp_path)]) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: ')
  assert message in line
