"""Weights folders: a network's configuration and its parameters, by orbax."""

import json
import os
import pathlib

import orbax.checkpoint as ocp

from mixdtp_jax.checkpoints import restoring, saving, verifying
from mixdtp_jax.models.config import AnyConfig, as_mapping, make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.runtime.files import DAMAGED, check_format, dump_json, replacing

FORMAT = 1  # folders of version 0.1 have no number
CONFIG = 'model.json'  # marks a weights folder
PARAMS = 'params'
_REMEDY = 'convert the weights again, or take them from a copy'


def save_weights(
  folder: str | os.PathLike, cfg: AnyConfig, params: dict
) -> None:
  """Writes a weights folder: the model's configuration and parameters.

  Raises:
    FileExistsError: something is there already; nothing was changed.
    ValueError: a parameter is not finite, or orbax cannot save there.
    OSError: what was written is read back with other values.
  """
  folder = pathlib.Path(folder).absolute()
  saving.check_path(folder)
  trees = {PARAMS: params}
  if bad := verifying.not_finite(trees):
    raise ValueError(f'{bad} is not finite: nothing was written')
  if folder.exists():
    raise FileExistsError(f'{folder} exists already: choose another folder')
  with replacing(folder) as temporary:
    partial = pathlib.Path(temporary)
    partial.mkdir()
    fields = {'format': FORMAT, **as_mapping(cfg)}
    dump_json(fields, partial / CONFIG)
    # Synchronous: after an error, a thread of the other kind would still write.
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      checkpointer.save(partial / PARAMS, args=ocp.args.StandardSave(params))
    verifying.write_digests(partial, trees, fields)
    written = json.loads((partial / CONFIG).read_bytes())
    saving.check_readable(partial, written, trees)


def read_folder(folder: pathlib.Path) -> tuple[AnyConfig, dict]:
  """Reads a weights folder.

  FileNotFoundError if its parameters are missing; ValueError if it is damaged,
  or was made by a newer version.
  """
  path = folder / CONFIG
  try:
    fields = json.loads(path.read_bytes())
    version = dict(fields).get('format', 0)
  except DAMAGED as error:
    raise ValueError(f'{path} is damaged ({error}): {_REMEDY}') from None
  check_format(path, version, FORMAT)
  if not (folder / PARAMS).is_dir():
    raise FileNotFoundError(f'{folder / PARAMS} is missing: {_REMEDY}')
  try:
    digests = verifying.read_digests(folder, fields)
    cfg = make_model_config({k: fields[k] for k in fields if k != 'format'})
    target = restoring.on_one_device(abstract_params(cfg))
    restoring.ignore_closed_loops()
    with ocp.StandardCheckpointer() as checkpointer:
      params = checkpointer.restore(folder / PARAMS, target)
    verifying.check(folder, digests, {PARAMS: params})
  # For a damaged file, orbax raises nearly anything.
  except Exception as error:  # noqa: BLE001
    text = saving.reason(error)
    raise ValueError(
      f'{path} does not describe sound weights ({text}): {_REMEDY}'
    ) from None
  return cfg, params
