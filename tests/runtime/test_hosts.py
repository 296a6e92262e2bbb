"""Several processes on this machine train and stop as one."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.evaluation import network
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.training.start import start_state
from tests.helpers.child_runs import get_config

pytestmark = pytest.mark.usefixtures('quick_compiler')


def _config(pairs, workdir, **changes):
  """Returns a run of a few updates with one checkpoint, at the end."""
  usual = {'num_train_steps': 6, 'checkpoint_every_steps': 0}
  return get_config(pairs, workdir / 'data', **(usual | changes))


def _address():
  with contextlib.closing(socket.socket()) as probe:
    probe.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{probe.getsockname()[1]}'


def _start(children, config, workdir, count, **kwargs):
  """Runs `count` processes; their output is in WORKDIR.NUMBER."""
  address = _address()
  return [
    children.start(
      config,
      workdir,
      host=(address, count, i),
      output=workdir.with_suffix(f'.{i}'),
      **kwargs,
    )
    for i in range(count)
  ]


def _printed(workdir, count):
  return [workdir.with_suffix(f'.{i}').read_text() for i in range(count)]


def _join(processes, workdir):
  for process in processes:
    process.join(300)
  texts = _printed(workdir, len(processes))
  codes = [process.exitcode for process in processes]
  assert codes == [0] * len(codes), [text[-2000:] for text in texts]
  return texts


def _last_state(workdir, config):
  with saving.Manager(workdir) as manager:
    state = start_state(manager, make_recipe(config), replicated(make_mesh()))
  return jax.tree.map(np.asarray, state)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize('count', [2, 4])
def test_several_processes_train_what_one_does(
  children, tiny_pairs, tmp_path, count
):
  alone, together = tmp_path / 'alone', tmp_path / 'together'
  config = _config(tiny_pairs, together)
  texts = _join(_start(children, config, together, count), together)
  children.finish(_config(tiny_pairs, alone), alone, devices=count)
  # The same shards on the same kind of device; only the network between them
  # adds the gradients in an order of its own.
  states = [_last_state(folder, config) for folder in (together, alone)]
  assert states[0].step == 6
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6),
    *states,
  )
  # The first alone prints, and writes what is no checkpoint.
  assert 'mean over 3 images' in texts[0]
  assert not any('mean over' in text or 'loss' in text for text in texts[1:])
  assert len(list(together.glob('events*'))) == 1
  rows = [
    (folder / 'results' / 'results.csv').read_text().splitlines()
    for folder in (together, alone)
  ]
  assert len(rows[0]) == len(rows[1]) == 4
  for one, other in zip(*rows, strict=True):
    for x, y in zip(one.split(','), other.split(','), strict=True):
      if re.fullmatch(r'[\d.]+', x):
        assert float(x) == pytest.approx(float(y), rel=1e-4)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_eval_on_two_hosts(children, tiny_pairs, environment, tmp_path):
  """eval.py as a user starts it, by flags, on the weights of a run."""
  workdir, out = tmp_path / 'run', tmp_path / 'out'
  children.finish(_config(tiny_pairs, workdir), workdir)
  address = _address()
  processes = [
    subprocess.Popen(
      [
        sys.executable,
        'eval.py',
        f'--weights={workdir}',
        f'--out={out}',
        '--crop_multiple=16',
        f'--coordinator={address}',
        '--num_processes=2',
        f'--process_id={i}',
      ],
      cwd=pathlib.Path(__file__).parents[2],
      env=environment | {'XLA_FLAGS': ''},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  try:
    texts = [process.communicate(timeout=300)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], texts
  assert 'mean over 3 images' in texts[0]
  assert 'mean over' not in texts[1]
  one, two = (
    json.loads((folder / 'results.json').read_text())['mean']['restored']
    for folder in (workdir / 'results', out)
  )
  assert two['y']['psnr'] == pytest.approx(one['y']['psnr'], abs=1e-3)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize('signalled', [0, 1])
def test_sigterm_to_one_stops_all(children, tiny_pairs, tmp_path, signalled):
  workdir = tmp_path / 'run'
  config = _config(
    tiny_pairs, workdir, num_train_steps=100_000, checkpoint_every_steps=50
  )
  processes = _start(children, config, workdir, 2)
  folder = workdir / 'checkpoints'
  while not any(p.name.isdigit() for p in folder.glob('*')):
    assert all(process.is_alive() for process in processes), _printed(
      workdir, 2
    )
    time.sleep(0.02)
  os.kill(processes[signalled].pid, signal.SIGTERM)
  texts = _join(processes, workdir)
  (step,) = re.findall(r'Stopped by SIGTERM after update (\d+)', texts[0])
  assert 'Stopped' not in texts[1]
  assert _last_state(workdir, config).step == int(step)
  assert not (workdir / 'results').exists()


def _slow_evaluation_with_a_signal():
  """Sends SIGTERM to the second process in an evaluation's first batch."""
  real = network.evaluate

  def evaluate(restore, *args, **kwargs):
    def slowly(images):
      if jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(1)
      return restore(images)

    return real(slowly, *args, **kwargs)

  network.evaluate = evaluate


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(('every', 'stopped_after'), [(2, 2), (0, 6)])
def test_sigterm_in_an_evaluation_stops_all(
  children, tiny_pairs, tmp_path, every, stopped_after
):
  workdir = tmp_path / 'run'
  config = _config(
    tiny_pairs, workdir, eval_every_steps=every, eval_batch_size=2
  )
  processes = _start(
    children, config, workdir, 2, before=_slow_evaluation_with_a_signal
  )
  texts = _join(processes, workdir)
  assert f'Stopped by SIGTERM after update {stopped_after} of 6' in texts[0]
  assert _last_state(workdir, config).step == stopped_after
  assert not (workdir / 'results' / 'results.json').exists()


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(
  ('case', 'message'),
  [
    ('seed', 'the configuration is not the same in process 1'),
    ('workdir', 'which all hosts must share, is not the same in process 1'),
    ('devices', r'different numbers of devices \(0 has 1, 1 has 2\)'),
    ('source', 'nowhere'),
  ],
)
def test_what_differs_or_fails_stops_all(
  children, tiny_pairs, tmp_path, case, message
):
  source = tmp_path / 'nowhere' if case == 'source' else tiny_pairs
  first = second = _config(source, tmp_path)
  if case == 'seed':
    second = _config(source, tmp_path, seed=8)
  address, workdir = _address(), tmp_path / 'run'
  processes = [
    children.start(
      config,
      tmp_path / 'other' if case == 'workdir' and i else workdir,
      devices=1 + i if case == 'devices' else 1,
      host=(address, 2, i),
      output=workdir.with_suffix(f'.{i}'),
    )
    for i, config in enumerate((first, second))
  ]
  for process in processes:
    process.join(120)
  texts = _printed(workdir, 2)
  assert processes[0].exitcode == 1, texts
  assert processes[1].exitcode, texts
  assert re.search(message, texts[0])
  other = 'stopped as process 0 did' if case == 'source' else message
  # Process 0 serves the others: they may lose it before they have their say.
  lost = 'distributed service detected fatal'
  assert re.search(f'{other}|{lost}', texts[1])
  assert not list(tmp_path.glob('*/checkpoints/*'))


def test_a_coordinator_alone_is_not_enough():
  with pytest.raises(ValueError, match='belong together: give all three'):
    hosts.initialize('localhost:1234')


@pytest.mark.parametrize(
  ('names', 'cluster'),
  [
    ({}, None),
    ({'SLURM_NTASKS': '8', 'SLURM_PROCID': '0'}, None),  # of sbatch, no srun
    ({'SLURM_STEP_NUM_TASKS': '1'}, None),
    ({'SLURM_STEP_NUM_TASKS': '8'}, 'Slurm'),
    ({'OMPI_COMM_WORLD_SIZE': '1'}, None),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, 'Open MPI'),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, None),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, 'the TPU slice'),
  ],
)
def test_joins_the_others_where_a_cluster_started_several(
  monkeypatch, names, cluster
):
  calls = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda: calls.append(1))
  for name in list(os.environ):
    if name.startswith(('SLURM_', 'OMPI_', 'TPU_')):
      monkeypatch.delenv(name)
  for name, value in names.items():
    monkeypatch.setenv(name, value)
  hosts.initialize()
  assert len(calls) == bool(cluster)

  def unknown():
    raise ValueError('coordinator_address should be defined.')

  monkeypatch.setattr(jax.distributed, 'initialize', unknown)
  if cluster:
    with pytest.raises(ValueError, match=f'{cluster} .*: give --coordinator'):
      hosts.initialize()
