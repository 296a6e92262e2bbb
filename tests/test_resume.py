"""Runs that are killed, stopped, damaged or starved go on as if nothing was."""

import random
import time

import jax
import numpy as np
import pytest
from child_runs import UPDATES, get_config

from mixdtp_jax import checkpoints
from mixdtp_jax.data import pipeline
from mixdtp_jax.mesh import make_mesh, replicated
from mixdtp_jax.train import start_state

pytest_plugins = ('tiny', 'child_runs')
pytestmark = pytest.mark.usefixtures('quick_compiler')

_KILLS = 20


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('prepared')


@pytest.fixture(scope='module')
def config(tiny_pairs, data_dir):
  return get_config(tiny_pairs, data_dir)


def _end_of(workdir, config):
  """The last state, and the batch that would be next."""
  mesh = make_mesh(jax.devices()[:1])
  with checkpoints.make_manager(workdir) as manager:
    state = start_state(manager, config, replicated(mesh))
  step = int(state.step)
  batch = next(pipeline.train_batches(config, start_step=step, mesh=mesh))
  return jax.tree.map(np.asarray, (state, batch))


@pytest.fixture(scope='module')
def straight(children, config, tmp_path_factory):
  """Of a run that nothing disturbed: its folder, last state and next batch."""
  workdir = tmp_path_factory.mktemp('straight')
  children.finish(config, workdir)
  return workdir, *_end_of(workdir, config)


def _saved(folder):
  return {p.name for p in folder.glob('*') if p.name.isdigit()}


def _half_saved(folder):
  return list(folder.glob('*.orbax-checkpoint-tmp*'))


def _kill_somewhere(process, folder, draw):
  """SIGKILL early, inside a save, or after one; True where it was inside."""
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
