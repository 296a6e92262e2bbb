"""Runs in child processes, forked from one that has imported everything.

They train the smallest PReNet, which starts quickly.
"""

import logging
import multiprocessing
import os
import sys

import jax
import ml_collections
import pytest

from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.console import set_up_logging
from tests.helpers import tiny

UPDATES = 30


def get_config(pairs, data_dir, **changes) -> ml_collections.ConfigDict:
  """Returns a run that saves after each update; all learning rates differ."""
  config = tiny.get_prenet_config()
  config.data.source, config.data.data_dir = str(pairs), str(data_dir)
  config.batch_size = 4
  config.num_train_steps = UPDATES
  config.checkpoint_every_steps = 1
  config.eval_every_steps = 0
  config.update_from_flattened_dict(changes)
  return config


def run(config, workdir, output, compiler, devices, host, before) -> None:
  """Trains like train.py, in the child; `output` gets what it prints."""
  from mixdtp_jax.training.loop import train_and_evaluate  # TensorFlow

  descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  os.dup2(descriptor, 1)
  os.dup2(descriptor, 2)
  os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={devices}'
  for name, value in compiler.items():
    jax.config.update(name, value)
  logging.getLogger().handlers.clear()  # what imports have set up before
  set_up_logging()
  hosts.initialize(*host)
  set_up_logging(first=hosts.is_first())
  before()
  if not host:  # what one process sends to its device, it sends on purpose
    jax.config.update('jax_transfer_guard', 'disallow')
  train_and_evaluate(make_recipe(config), str(workdir))
  jax.distributed.shutdown()  # as at the end of a program


def _nothing() -> None:
  pass


class Children:
  """Starts children, and ends those that are left."""

  def __init__(self, compiler, folder):
    self._context = multiprocessing.get_context('forkserver')
    self._context.set_forkserver_preload(
      ['tests.helpers.child_runs', 'mixdtp_jax.training.loop']
    )
    self._compiler = compiler
    self.output = folder / 'output.txt'
    self._started = []

  def start(
    self, config, workdir, *, devices=1, host=(), output=None, before=_nothing
  ):
    """Starts a process that calls `before` and then trains; see `run`."""
    process = self._context.Process(
      target=run,
      args=(
        config,
        workdir,
        str(output or self.output),
        self._compiler,
        devices,
        host,
        before,
      ),
    )
    process.start()
    self._started.append(process)
    return process

  def finish(self, *args, **kwargs):
    """Runs a child to its end, and checks that it succeeds."""
    process = self.start(*args, **kwargs)
    process.join(300)
    assert process.exitcode == 0, self.output.read_text()[-3000:]

  def end(self):
    for process in self._started:
      process.kill()
      process.join()


@pytest.fixture(scope='module')
def children(compiler, tmp_path_factory):
  started = Children(compiler, tmp_path_factory.mktemp('children'))
  with pytest.MonkeyPatch.context() as patch:
    # What the process that forks imports, it finds by its environment alone.
    patch.setenv('PYTHONPATH', os.pathsep.join(filter(None, sys.path)))
    yield started
  started.end()
