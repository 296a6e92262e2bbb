"""Weights and configuration of a training run."""

import functools
import os
import pathlib

import ml_collections

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.models.config import (
  AnyConfig,
  make_model_config,
)
from mixdtp_jax.models.factory import abstract_params


def load_run_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
  """The whole configuration of a training run, of its newest checkpoint.

  Raises:
    FileNotFoundError: `workdir` has no checkpoint.
    ValueError: all of its checkpoints are damaged.
  """
  return read_run(workdir, _run_config)


def _run_config(manager, step) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(restoring.restore_config(manager, step))


def run_weights(manager, step) -> tuple[AnyConfig, dict]:
  """Reads the network's configuration and parameters of a checkpoint."""
  cfg = make_model_config(_run_config(manager, step).model)
  params = restoring.restore_params(manager, step, abstract_params(cfg))
  return cfg, params


def read_run(workdir, read):
  """Calls `read(manager, step)` on the newest checkpoint that it can read."""
  workdir = pathlib.Path(workdir).absolute()
  if (workdir / 'checkpoints').is_dir():
    with saving.open_manager(workdir) as manager:
      if manager.all_steps():
        return restoring.newest_readable(
          manager, functools.partial(read, manager)
        )[0]
  raise FileNotFoundError(
    f'{workdir}: no weights there; give the workdir of a training run that '
    'has saved a checkpoint, a folder made by convert, or a .pth file'
  )
