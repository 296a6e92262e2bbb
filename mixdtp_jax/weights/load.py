"""Trained weights, wherever they are: a run, a weights folder, a .pth."""

import dataclasses
import json
import os
import pathlib

import orbax.checkpoint as ocp

from mixdtp_jax.checkpoints import restoring
from mixdtp_jax.models.config import (
  EXECUTION,
  AnyConfig,
  as_mapping,
  make_model_config,
)
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights import names, pth
from mixdtp_jax.weights.folder import CONFIG, PARAMS
from mixdtp_jax.weights.run import read_run, run_weights


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
    state_dict = pth.read_pth(path)
    cfg = names.infer_config(state_dict, steps=steps)
    return cfg, pth.from_torch(state_dict, cfg)
  if (path / CONFIG).is_file():
    cfg = make_model_config(json.loads((path / CONFIG).read_text()))
    with ocp.StandardCheckpointer() as checkpointer:
      target = restoring.on_one_device(abstract_params(cfg))
      params = checkpointer.restore(path / PARAMS, target)
  else:
    cfg, params = read_run(path, run_weights)
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
