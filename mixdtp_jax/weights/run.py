"""Weights and configuration of a training run, from its checkpoints."""

import functools
import os
import pathlib

import ml_collections

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.models.config import AnyConfig, make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights import shipped


def load_run_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
  """Reads the whole configuration of a training run.

  Raises:
    FileNotFoundError: `workdir` has no checkpoint.
    ValueError: all of its checkpoints are damaged, or a newer version made
      them.
  """
  return _read_newest(workdir, _config)


def read_run(workdir: str | os.PathLike) -> tuple[AnyConfig, dict]:
  """Reads a run's network and parameters, averaged ones if it has them.

  Raises:
    FileNotFoundError, ValueError: see `load_run_config`.
  """
  return _read_newest(workdir, _weights)


def _config(manager, step) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(restoring.restore_config(manager, step))


def _weights(manager, step) -> tuple[AnyConfig, dict]:
  cfg = make_model_config(_config(manager, step).model)
  return cfg, restoring.restore_params(manager, step, abstract_params(cfg))


def _read_newest(workdir, read):
  """Calls `read(manager, step)` for the newest checkpoint that is readable."""
  workdir = pathlib.Path(workdir).absolute()
  if (workdir / 'checkpoints').is_dir():
    with saving.open_manager(workdir) as manager:
      if manager.all_steps():
        return restoring.newest_readable(
          manager, functools.partial(read, manager)
        )[0]
  raise shipped.not_found(workdir)
