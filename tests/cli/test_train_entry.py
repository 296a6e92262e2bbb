"""train.py as a user runs it: in a process of its own."""

import pathlib
import re
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures('quick_compiler')

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'


def _command(*arguments):
  """train.py with the tiny configuration."""
  script, config = _TESTS.parents[1] / 'train.py', _TESTS / 'tiny.py'
  return [sys.executable, str(script), f'--config={config}', *arguments]


def _kill_after_a_checkpoint(command, environment, folder):
  """SIGKILLs a run as soon as a checkpoint is whole."""
  process = subprocess.Popen(
    command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
  )
  try:
    deadline = time.monotonic() + 500
    # A checkpoint has another name until it is whole.
    while not any(p.name.isdigit() for p in folder.glob('*')):
      assert process.poll() is None, process.stdout.read().decode()
      assert time.monotonic() < deadline
      time.sleep(0.01)
  finally:
    process.kill()
    process.communicate()


def test_a_killed_run_continues_as_if_it_had_not_been(
  tiny_run, environment, tmp_path
):
  workdir = tmp_path / 'run'
  command = _command(
    f'--workdir={workdir}',
    f'--config.data.source={tiny_run.config.data.source}',
  )
  folder = workdir / 'checkpoints'
  _kill_after_a_checkpoint(command, environment, folder)
  assert not (folder / '20').exists()
  assert not (workdir / 'results').exists()

  result = subprocess.run(
    command, env=environment, capture_output=True, text=True, timeout=500
  )
  assert result.returncode == 0, result.stderr
  message = r'Continuing from the checkpoint of step (\d+)'
  (step,) = re.findall(message, result.stderr)
  assert 4 <= int(step) < 20
  # All that a run tells on stdout is its scores.
  assert re.search(r'^y +\d+\.\d+ / ', result.stdout, re.MULTILINE)
  assert 'mean over 3 images' in result.stdout

  with saving.make_manager(workdir) as manager:
    continued = restoring.restore_or_init(
      manager,
      tiny.get_config(),
      lambda: tiny_run.state,  # its shapes
      replicated(make_mesh()),
    )
  assert continued.step == 20
  # The rate of every update is another one, so a wrong count would show.
  jax.tree.map(np.testing.assert_array_equal, continued, tiny_run.state)
  for name in ('results.csv', 'comparison.png'):
    straight = (tiny_run.workdir / 'results' / name).read_bytes()
    assert (workdir / 'results' / name).read_bytes() == straight


def test_sigterm_saves_and_is_a_good_end(tiny_run, environment, tmp_path):
  workdir = tmp_path / 'run'
  with open(tmp_path / 'output.txt', 'w+') as output:
    process = subprocess.Popen(
      _command(
        f'--workdir={workdir}',
        f'--config.data.source={tiny_run.config.data.source}',
        f'--config.data.data_dir={tiny_run.workdir / "data"}',
        '--config.checkpoint_every_steps=3',
        '--config.eval_every_steps=0',
      ),
      env=environment,
      stdout=output,
      stderr=subprocess.STDOUT,
    )
    try:
      deadline = time.monotonic() + 500
      while not any(p.name.isdigit() for p in workdir.glob('checkpoints/*')):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
      process.terminate()
      assert process.wait(60) == 0
    finally:
      process.kill()
    output.seek(0)
    text = output.read()
  (step,) = re.findall(r'Stopped by SIGTERM after update (\d+) of', text)
  assert (workdir / 'checkpoints' / step).is_dir()
  assert 'Traceback' not in text


def test_an_unknown_key_is_refused(tmp_path):
  workdir = tmp_path / 'run'
  result = subprocess.run(
    _command(f'--workdir={workdir}', '--config.nonsense=1'),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode
  assert 'nonsense' in result.stderr
  assert not workdir.exists()


def test_the_demo_needs_no_files(environment, tmp_path):
  """The README's first command, with less of everything."""
  result = subprocess.run(
    [
      sys.executable,
      'train.py',
      '--config=configs/demo.py',
      f'--workdir={tmp_path}',
      '--config.num_train_steps=40',
      '--config.schedule.warmup_steps=4',
      '--config.model.width=4',
      '--config.model.heads=(1,1,1,1)',
      '--config.model.recurrent_width=4',
      '--config.model.steps=1',
      '--config.data.crop=16',
      '--config.batch_size=8',
    ],
    env=environment,
    cwd=_TESTS.parent,
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert result.returncode == 0, result.stderr
  assert 'mean over 4 images' in result.stdout
  assert (tmp_path / 'results' / 'comparison.png').is_file()
