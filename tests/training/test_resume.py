"""Runs continue exactly after kills, signals, damage and full disks."""

import contextlib
import random
import re
import shutil
import subprocess
import time

import jax
import numpy as np
import pytest

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.data import train_batches
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.training.start import start_state
from tests.helpers.child_runs import UPDATES, get_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quick_compiler')]

_KILLS = 20


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('prepared')


@pytest.fixture(scope='module')
def config(tiny_pairs, data_dir):
  return get_config(tiny_pairs, data_dir)


def _end_of(workdir, config):
  """Returns the last state and the next batch."""
  mesh = make_mesh(jax.devices()[:1])
  with saving.make_manager(workdir) as manager:
    state = start_state(manager, make_recipe(config), replicated(mesh))
  step = int(state.step)
  longer = config.copy_and_resolve_references()
  longer.num_train_steps = step + 1
  batch = next(train_batches.train_batches(longer, start_step=step, mesh=mesh))
  return jax.tree.map(np.asarray, (state, batch))


@pytest.fixture(scope='module')
def straight(children, config, tmp_path_factory):
  """An undisturbed run: its folder, last state and next batch."""
  workdir = tmp_path_factory.mktemp('straight')
  children.finish(config, workdir)
  return workdir, *_end_of(workdir, config)


def _saved(folder):
  return {p.name for p in folder.glob('*') if p.name.isdigit()}


def _half_saved(folder):
  return list(folder.glob('*.orbax-checkpoint-tmp*'))


def _kill_somewhere(process, folder, draw):
  """Kills early, inside a save or after it; returns True for inside."""
  before, deadline = _saved(folder), time.monotonic() + 120
  moment = draw.choice(['early', 'inside', 'inside', 'after'])
  if moment == 'early':
    time.sleep(draw.uniform(0, 0.5))
  else:
    stale = set(_half_saved(folder))

    def now():
      if moment == 'inside':
        return set(_half_saved(folder)) - stale
      return _saved(folder) - before

    while not now() and process.is_alive() and time.monotonic() < deadline:
      time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.03))
  process.kill()
  process.join()
  return bool(_half_saved(folder))


def test_kills_leave_no_trace(children, config, straight, tmp_path):
  draw, kills, inside, rounds = random.Random(0), 0, 0, 0
  while kills < _KILLS:
    rounds += 1
    workdir = tmp_path / str(rounds)
    folder = workdir / 'checkpoints'
    while kills < _KILLS and str(UPDATES) not in _saved(folder):
      process = children.start(config, workdir)
      inside += _kill_somewhere(process, folder, draw)
      kills += process.exitcode == -9
    children.finish(config, workdir)
    jax.tree.map(
      np.testing.assert_array_equal, _end_of(workdir, config), straight[1:]
    )
    assert not _half_saved(folder)
    results = (workdir / 'results' / 'results.csv').read_bytes()
    assert results == (straight[0] / 'results' / 'results.csv').read_bytes()
  assert inside >= 3


def _wait_for_a_checkpoint(process, folder, output):
  deadline = time.monotonic() + 120
  while not _saved(folder):
    assert process.is_alive(), output.read_text()[-3000:]
    assert time.monotonic() < deadline
    time.sleep(0.002)


def test_sigterm_loses_no_update(children, config, straight, tmp_path):
  folder, output = tmp_path / 'run' / 'checkpoints', tmp_path / 'output.txt'
  # Only SIGTERM saves, and only a few updates are left when it comes.
  slow = config.copy_and_resolve_references()
  slow.checkpoint_every_steps = 5
  process = children.start(slow, folder.parent, output=output)
  _wait_for_a_checkpoint(process, folder, output)
  process.terminate()
  process.join(60)
  assert process.exitcode == 0
  message = (
    r'Stopped by SIGTERM after update (\d+) of 30; the state is in (.*)\. '
  )
  ((step, path),) = re.findall(message, output.read_text())
  assert path == str(folder / step)
  assert (folder / step).is_dir()
  children.finish(slow, folder.parent)
  jax.tree.map(
    np.testing.assert_array_equal, _end_of(folder.parent, slow), straight[1:]
  )


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a file system of 4 MB."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(folder)]
  if shutil.which('mount') is None or subprocess.run(command).returncode:
    pytest.skip('only root can mount a small file system')
  yield folder
  subprocess.run(['umount', '-l', str(folder)], check=True)


def _fill(folder):
  path = folder / 'filler'
  with contextlib.suppress(OSError), open(path, 'wb', buffering=0) as file:
    while True:
      file.write(bytes(4096))
  return path


def test_a_full_disk_stops_a_run_and_harms_no_checkpoint(
  children, config, straight, small_disk, tmp_path
):
  workdir, output = small_disk / 'run', tmp_path / 'output.txt'
  folder = workdir / 'checkpoints'
  process = children.start(config, workdir, output=output)
  _wait_for_a_checkpoint(process, folder, output)
  filler = _fill(small_disk)
  process.join(120)
  assert process.exitcode == 1
  # Threads of orbax log their own errors; this one ends the program.
  text = output.read_text()
  match = re.search(
    r'^OSError: the checkpoint of update (\d+) could not be saved: .*; the '
    rf'last good checkpoint is {folder}/(\d+)\. Free or fix the disk, .*',
    text,
    re.MULTILINE,
  )
  assert match, text[-3000:]
  assert 'During handling' not in text[match.end() :]
  assert int(match[1]) == int(match[2]) + 1
  assert max(map(int, _saved(folder))) == int(match[2])
  filler.unlink()
  children.finish(config, workdir, output=output)
  assert 'Damaged' not in output.read_text()
  jax.tree.map(
    np.testing.assert_array_equal, _end_of(workdir, config), straight[1:]
  )
