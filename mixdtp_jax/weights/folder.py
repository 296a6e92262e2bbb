"""Weights folders: a network's configuration and its parameters, by orbax."""

import json
import os
import pathlib
import tempfile

import orbax.checkpoint as ocp

from mixdtp_jax.checkpoints import restoring
from mixdtp_jax.models.config import AnyConfig, as_mapping, make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.runtime.formats import check_format

FORMAT = 1  # folders of version 0.1 have no number
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
  # A folder inside a private one has the permissions of any other.
  with tempfile.TemporaryDirectory(
    prefix=f'.{folder.name}-', dir=folder.parent
  ) as private:
    partial = pathlib.Path(private, folder.name)
    partial.mkdir()
    text = json.dumps({'format': FORMAT, **as_mapping(cfg)}, indent=2)
    (partial / CONFIG).write_text(text + '\n')
    # Synchronous: after an error, a thread of the other kind would still write.
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      checkpointer.save(partial / PARAMS, args=ocp.args.StandardSave(params))
    os.replace(partial, folder)


def read_folder(folder: pathlib.Path) -> tuple[AnyConfig, dict]:
  """Reads a weights folder.

  Raises:
    FileNotFoundError: its parameters are missing.
    ValueError: it is damaged, or was made by a newer version.
  """
  path = folder / CONFIG
  try:
    fields = json.loads(path.read_bytes())
    version = dict(fields).get('format', 0)
  except (RecursionError, TypeError, ValueError) as error:
    raise ValueError(
      f'{path} is damaged ({error}): convert the weights again'
    ) from None
  check_format(path, version, FORMAT)
  try:
    cfg = make_model_config({k: fields[k] for k in fields if k != 'format'})
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None
  with ocp.StandardCheckpointer() as checkpointer:
    target = restoring.on_one_device(abstract_params(cfg))
    return cfg, checkpointer.restore(folder / PARAMS, target)
