"""Trained weights, wherever they are: a run, a weights folder, a .pth."""

import dataclasses
import functools
import json
import os
import pathlib
import tempfile

import ml_collections
import orbax.checkpoint as ocp

from mixdtp_jax import checkpoints
from mixdtp_jax.interop import torch_names, torch_weights
from mixdtp_jax.models.config import (
  EXECUTION,
  AnyConfig,
  as_mapping,
  make_model_config,
)
from mixdtp_jax.models.factory import abstract_params

_CONFIG = 'model.json'  # marks a weights folder
_PARAMS = 'params'


def save_weights(
  folder: str | os.PathLike, cfg: AnyConfig, params: dict
) -> None:
  """Writes a weights folder: the model's configuration and parameters.

  Raises:
    FileExistsError: something is there already; nothing was changed.
  """
  folder = pathlib.Path(folder).absolute()
  if folder.exists():
    raise FileExistsError(f'{folder} exists already: choose another folder')
  folder.parent.mkdir(parents=True, exist_ok=True)
  # A folder in a private one has the permissions of any other.
  with tempfile.TemporaryDirectory(
    prefix=f'.{folder.name}-', dir=folder.parent
  ) as private:
    partial = pathlib.Path(private, folder.name)
    partial.mkdir()
    text = json.dumps(as_mapping(cfg), indent=2)
    (partial / _CONFIG).write_text(text + '\n')
    # Not the asynchronous one: after an error its thread would still write.
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      checkpointer.save(partial / _PARAMS, args=ocp.args.StandardSave(params))
    os.replace(partial, folder)


def load_weights(
  path: str | os.PathLike, *, steps: int | None = None
) -> tuple[AnyConfig, dict]:
  """Loads weights with the configuration of their network.

  Args:
    path: the workdir of a training run (its newest readable checkpoint is
      taken, of a run with ema_decay the averaged weights), a folder that
      `save_weights` wrote, or a PyTorch .pth file.
    steps: iterations of the progressive refinement; None is what the weights
      were trained with, or for a .pth, which does not say, the published 3
      (of PReNet 6).

  Returns:
    The configuration, and the parameters for `make_network(cfg).apply`.

  Raises:
    FileNotFoundError: nothing is at `path`, or nothing that is weights.
    ValueError: the weights are damaged or of another network, or `steps` asks
      for a refinement that they do not have.
  """
  path = pathlib.Path(path).absolute()
  if path.is_file():
    state_dict = torch_weights.read_pth(path)
    cfg = torch_names.infer_config(state_dict, steps=steps)
    return cfg, torch_weights.from_torch(state_dict, cfg)
  if (path / _CONFIG).is_file():
    cfg = make_model_config(json.loads((path / _CONFIG).read_text()))
    with ocp.StandardCheckpointer() as checkpointer:
      target = checkpoints.on_one_device(abstract_params(cfg))
      params = checkpointer.restore(path / _PARAMS, target)
  else:
    cfg, params = _read_run(path, _run_weights)
  return _with_steps(cfg, steps), params


def load_params(path: str | os.PathLike, cfg: AnyConfig) -> dict:
  """Loads weights to start the network of `cfg` from.

  Args:
    path: as of `load_weights`.
    cfg: of the network. Its number of recurrent steps may be another one than
      that of the weights.

  Returns:
    The parameters for `make_network(cfg).apply`.

  Raises:
    FileNotFoundError, ValueError: see `load_weights`.
    ValueError: the weights are of another network; the message lists the
      fields that differ.
  """
  found, params = load_weights(path)
  theirs, ours = map(_parameter_fields, (found, cfg))
  if differences := [
    f'model.{name}: there {theirs.get(name)}, here {value}'
    for name, value in ours.items()
    if value != theirs.get(name)
  ]:
    raise ValueError(
      f'the weights of {path} are of another network: '
      f'{"; ".join(differences)}. Set these fields to what is there, or start '
      'from other weights.'
    )
  return params


def _parameter_fields(cfg: AnyConfig) -> dict:
  """The fields on which the parameters depend."""
  fields = {k: v for k, v in as_mapping(cfg).items() if k not in EXECUTION}
  # The recurrent steps share their parameters; only without any are there none.
  if 'steps' in fields:
    fields['steps'] = 'some' if cfg.steps else 0
  return fields


def _with_steps(cfg, steps):
  trained = getattr(cfg, 'steps', 0)  # Restormer has none
  if steps is None or steps == trained:
    return cfg
  if not trained:
    raise ValueError(f'steps = {steps}: the weights have no refinement')
  return dataclasses.replace(cfg, steps=steps)


def load_run_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
  """The whole configuration of a training run, of its newest checkpoint.

  Raises:
    FileNotFoundError: `workdir` has no checkpoint.
    ValueError: all of its checkpoints are damaged.
  """
  return _read_run(workdir, _run_config)


def _run_config(manager, step) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(checkpoints.restore_config(manager, step))


def _run_weights(manager, step) -> tuple[AnyConfig, dict]:
  cfg = make_model_config(_run_config(manager, step).model)
  params = checkpoints.restore_params(manager, step, abstract_params(cfg))
  return cfg, params


def _read_run(workdir, read):
  """What `read` gives of the newest checkpoint that it can read."""
  workdir = pathlib.Path(workdir).absolute()
  if (workdir / 'checkpoints').is_dir():
    with checkpoints.open_manager(workdir) as manager:
      if manager.all_steps():
        return checkpoints.newest_readable(
          manager, functools.partial(read, manager)
        )[0]
  raise FileNotFoundError(
    f'{workdir}: no weights there; give the workdir of a training run that '
    'has saved a checkpoint, a folder made by convert, or a .pth file'
  )
