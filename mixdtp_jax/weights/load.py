"""Trained weights, wherever they are: the one place that reads them."""

import dataclasses
import os
import pathlib
from typing import Any

from absl import logging

from mixdtp_jax.checkpoints import verifying
from mixdtp_jax.models.config import (
  EXECUTION,
  AnyConfig,
  MixDTPConfig,
  UNetConfig,
  as_mapping,
)
from mixdtp_jax.weights import names, pth, shipped
from mixdtp_jax.weights.safetensors_file import read_safetensors
from mixdtp_jax.weights.state_dict import from_torch


def load_weights(
  source: str | os.PathLike,
  *,
  steps: int | None = None,
  update: int | str | None = None,
) -> tuple[AnyConfig, dict]:
  """Loads weights with the configuration of their network.

  The parameters, finite float32 arrays, are for `make_network(cfg).apply`.

  Args:
    source: the name of shipped weights, such as 'general' ('./general' is a
      file); a .safetensors or .pth file; the workdir of a training run, of
      which the averaged weights are taken if it has ema_decay; or a weights
      folder.
    steps: iterations of the progressive refinement. None keeps the number
      that the weights were trained with; files of PyTorch do not say it, and
      get the published 3 (PReNet: 6).
    update: the checkpoint of a training run: its update, or 'best'. None takes
      the newest that is readable.

  Raises:
    FileNotFoundError: there are no weights at `source`.
    ImportError: a .pth file needs PyTorch.
    ValueError: the weights are damaged, of an unknown network, or made by a
      newer version; or they have no refinement for `steps`, or the run no
      checkpoint `update`.
  """
  path = shipped.locate(source)
  if update is not None and not (path / 'checkpoints').is_dir():
    raise ValueError(
      f'{path} is no training run: it has no checkpoint of update {update}'
    )
  if path.is_file():
    cfg, params = _read_file(path)
  else:
    cfg, params = _read_folder(path, update)
  if name := verifying.not_finite(params):
    raise ValueError(
      f'{path}: {name} has values that are not finite; use weights from '
      'before they became so'
    )
  if steps is None:
    return cfg, params
  return _with_steps(cfg, params, steps)


def _read_file(path: pathlib.Path) -> tuple[AnyConfig, dict]:
  stated = None
  if path.suffix == '.safetensors':
    state_dict, stated = read_safetensors(path)
  else:
    state_dict = pth.read_pth(path)
  plain, prefix = names.plain_names(state_dict)
  if prefix:
    logging.info(
      '%s: took %d of %d tensors, those under %s',
      path, len(plain), len(state_dict), prefix.rstrip('.')
    )  # fmt: skip
  try:
    cfg = names.infer_config(plain)
    if stated is not None:
      cfg = _confirmed(stated, cfg)
    return cfg, from_torch(plain, cfg)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _read_folder(
  path: pathlib.Path, update: int | str | None
) -> tuple[AnyConfig, dict]:
  # Both readers need orbax, which takes long to import.
  if update is None and (path / 'model.json').is_file():
    from mixdtp_jax.weights.folder import read_folder

    return read_folder(path)
  if (path / 'checkpoints').is_dir():
    from mixdtp_jax.weights.run import read_run

    return read_run(path, update)
  raise shipped.not_found(path)


def load_params(source: str | os.PathLike, cfg: AnyConfig) -> dict:
  """Loads weights to start the network of `cfg` from.

  The number of recurrent steps may differ. ValueError, which lists the fields,
  if others do; or see `load_weights`.
  """
  found, params = load_weights(source)
  if differences := _differences(found, cfg):
    raise ValueError(
      f'the weights of {source} are of another network: '
      + '; '.join(
        f'model.{name}: there {there}, here {here}'
        for name, (there, here) in differences.items()
      )
      + '. Set these fields to what is there, or start from other weights.'
    )
  return params


def _confirmed(stated: AnyConfig, inferred: AnyConfig) -> AnyConfig:
  """Returns `stated` if the tensors are of that network."""
  if isinstance(stated, MixDTPConfig) and isinstance(inferred, MixDTPConfig):
    # It has no parameters, so no shape tells it.
    inferred = dataclasses.replace(inferred, coupling=stated.coupling)
  if differences := _differences(stated, inferred):
    raise ValueError(
      'its metadata and its tensors are of different networks: '
      + '; '.join(
        f'{name} is {said} in the metadata, {found} by the tensors'
        for name, (said, found) in differences.items()
      )
    )
  return stated


def _differences(theirs: AnyConfig, ours: AnyConfig) -> dict[str, tuple]:
  """Maps the fields that change the parameters, and differ, to both values."""
  there, here = map(_parameter_fields, (theirs, ours))
  if isinstance(theirs, UNetConfig) and isinstance(ours, UNetConfig):
    hidden = [[c.hidden_width(i) for i in range(4)] for c in (theirs, ours)]
    if hidden[0] == hidden[1]:  # other factors may give the same channels
      del here['ffn_expansion']
  return {
    name: (there[name], value)
    for name, value in here.items()
    if name in there and value != there[name]
  }


def _parameter_fields(cfg: AnyConfig) -> dict[str, Any]:
  fields = {k: v for k, v in as_mapping(cfg).items() if k not in EXECUTION}
  if 'steps' in fields:
    # All steps share one set of parameters; without steps there are none.
    if fields['steps']:
      fields['steps'] = 'some'
    else:
      del fields['recurrent_width']
  return fields


def _with_steps(cfg, params, steps) -> tuple[AnyConfig, dict]:
  trained = getattr(cfg, 'steps', 0)  # Restormer has none
  if steps and not trained:
    raise ValueError(f'steps = {steps}: the weights have no refinement')
  if trained:
    cfg = dataclasses.replace(cfg, steps=steps)
  if not steps:
    params = {k: v for k, v in params.items() if k != 'progressive'}
  return cfg, params
