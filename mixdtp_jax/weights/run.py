"""Weights and configuration of a training run, from its checkpoints."""

import functools
import os
import pathlib

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.models.config import AnyConfig, make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights import shipped


def load_run_config(workdir: str | os.PathLike) -> dict:
  """Reads the options of a training run, as nested dicts.

  Its data_dir is the one beside the checkpoints if the run prepared its data
  there, even if the run was moved or copied since, or if its own is gone.
  FileNotFoundError if `workdir` has no checkpoint; ValueError if all of them
  are damaged, or of a newer version.
  """
  config = _read(workdir, None, restoring.restore_config)
  beside = shipped.locate(workdir) / 'data'
  found = pathlib.Path(config['data']['data_dir'] or beside)
  own = found.name == beside.name and beside.is_dir()
  if own or not found.is_dir():  # which may be a path of another machine
    found = beside
  config['data']['data_dir'] = str(found)
  return config


def read_run(
  workdir: str | os.PathLike, update: int | str | None = None
) -> tuple[AnyConfig, dict]:
  """Reads a run's network and parameters, averaged ones if it has them.

  `update` is the checkpoint: its number, 'best', or None for the newest
  readable one. Errors are those of `load_run_config`; ValueError, too, if the
  run has no such checkpoint.
  """
  if update == 'best':
    record = saving.read_best(workdir)
    if record is None:
      raise ValueError(
        f'{workdir} has no best checkpoint: train with --config.keep_best=val'
      )
    update = record['update']
  return _read(workdir, update, _weights)


def _weights(manager, update) -> tuple[AnyConfig, dict]:
  cfg = make_model_config(restoring.restore_config(manager, update)['model'])
  return cfg, restoring.restore_params(manager, update, abstract_params(cfg))


def _read(workdir, update, read):
  """Calls `read(manager, update)`; None is the newest that is readable."""
  workdir = shipped.locate(workdir)
  if (workdir / 'checkpoints').is_dir():
    with saving.open_manager(workdir) as manager:
      found = sorted(manager.all_steps())
      if update is not None and update not in found:
        raise ValueError(
          f'{workdir} has no checkpoint of update {update}, only of '
          f'{", ".join(map(str, found)) or "none"}'
        )
      if found:
        return restoring.newest_readable(
          manager, functools.partial(read, manager), only=update
        )[0]
  raise shipped.not_found(workdir)
