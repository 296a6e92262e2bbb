"""Runs continue exactly after kills, signals, damage and full disks."""

import contextlib
import functools
import random
import re
import shutil
import signal
import subprocess

import jax
import numpy as np
import pytest

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.data import train_batches
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.training.start import start_state
from tests.helpers import kills
from tests.helpers.child_runs import get_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quick_compiler')]


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('prepared')


@pytest.fixture(scope='module')
def config(tiny_pairs, data_dir):
  return get_config(tiny_pairs, data_dir)


def _end_of(workdir, config):
  """Returns the last state and the next batch."""
  mesh = make_mesh(jax.devices()[:1])
  with saving.Manager(workdir) as manager:
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


def _kills(draw):
  """Returns moments of kills, among them the first start and the first save."""
  rest = ['early'] * 4 + ['inside'] * 9 + ['after'] * 5
  return ['early', 'inside', *draw.sample(rest, len(rest))]


def _kill(children, config, workdir, moment, draw):
  """Kills a run early, inside a save or after it, at a drawn operation."""
  folder = workdir / 'checkpoints'
  update = max(map(int, _saved(folder)), default=0) + draw.choice([1, 2])
  if moment == 'early':
    place = re.escape(str(workdir)), draw.randint(1, 20)
  elif moment == 'inside':  # a save has more than 60
    place = rf'/{update}\.orbax-checkpoint-tmp', draw.randint(2, 50)
  else:
    place = rf'/{update + 1}\.orbax-checkpoint-tmp', 1
  before = functools.partial(kills.signal_at, *place)
  process = children.start(config, workdir, before=before)
  process.join(120)
  assert process.exitcode == -signal.SIGKILL, children.output.read_text()
  if moment == 'inside':
    assert [p.name[: p.name.index('.')] for p in _half_saved(folder)] == [
      str(update)
    ]
  if moment == 'after':
    assert str(update) in _saved(folder)


def test_kills_leave_no_trace(children, config, straight, tmp_path):
  draw, workdir = random.Random(0), tmp_path / 'run'
  for moment in _kills(draw):
    _kill(children, config, workdir, moment, draw)
  children.finish(config, workdir)
  assert not _half_saved(workdir / 'checkpoints')
  jax.tree.map(
    np.testing.assert_array_equal, _end_of(workdir, config), straight[1:]
  )
  results = (workdir / 'results' / 'results.csv').read_bytes()
  assert results == (straight[0] / 'results' / 'results.csv').read_bytes()


def test_sigterm_loses_no_update(children, config, straight, tmp_path):
  folder, output = tmp_path / 'run' / 'checkpoints', tmp_path / 'output.txt'
  slow = config.copy_and_resolve_references()
  slow.checkpoint_every_steps = 5
  # A thread saves update 10 and signals; the next save would wait for it.
  place = r'/10\.orbax-checkpoint-tmp', 20, signal.SIGTERM
  before = functools.partial(kills.signal_at, *place)
  process = children.start(slow, folder.parent, output=output, before=before)
  process.join(120)
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


def _fill_before_a_save(path, update):
  """Makes a run fill its disk with a file when it saves an update."""
  save = saving.save

  def fill_and_save(manager, state, config):
    if int(state.step) == update:
      saving.wait(manager)
      with contextlib.suppress(OSError), open(path, 'wb', 0) as file:
        while True:
          file.write(bytes(4096))
    save(manager, state, config)

  saving.save = fill_and_save


def test_a_full_disk_stops_a_run_and_harms_no_checkpoint(
  children, config, straight, small_disk, tmp_path
):
  workdir, output = small_disk / 'run', tmp_path / 'output.txt'
  folder, filler = workdir / 'checkpoints', small_disk / 'filler'
  before = functools.partial(_fill_before_a_save, filler, 6)
  process = children.start(config, workdir, output=output, before=before)
  process.join(120)
  text = output.read_text()
  assert process.exitcode == 1, text[-3000:]
  # Threads of orbax log their own errors; this one ends the program.
  match = re.search(
    r'^OSError: the checkpoint of update 6 could not be saved: .*; the '
    rf'last good checkpoint is {folder}/5\. Free or fix the disk, .*',
    text,
    re.MULTILINE,
  )
  assert match, text[-3000:]
  assert 'During handling' not in text[match.end() :]
  assert max(map(int, _saved(folder))) == 5
  filler.unlink()
  children.finish(config, workdir, output=output)
  assert 'Damaged' not in output.read_text()
  jax.tree.map(
    np.testing.assert_array_equal, _end_of(workdir, config), straight[1:]
  )
