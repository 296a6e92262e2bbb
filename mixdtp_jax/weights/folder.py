"""Weights folders: the configuration of a network and its parameters."""

import json
import os
import pathlib
import tempfile

import orbax.checkpoint as ocp

from mixdtp_jax.models.config import (
  AnyConfig,
  as_mapping,
)

CONFIG = 'model.json'  # marks a weights folder
PARAMS = 'params'


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
    (partial / CONFIG).write_text(text + '\n')
    # Not the asynchronous one: after an error its thread would still write.
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      checkpointer.save(partial / PARAMS, args=ocp.args.StandardSave(params))
    os.replace(partial, folder)
