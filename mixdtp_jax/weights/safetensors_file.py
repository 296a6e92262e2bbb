"""Safetensors files: what weights are published and shipped as.

The tensors have the PyTorch names (names.py) and layouts, so the PyTorch
networks load such a file, and files that PyTorch users publish are read. Our
own files also carry metadata, all of it text:

    mixdtp_jax_format   the format number, 1
    model               the network's configuration, as JSON
    recipe, data, results, licence   notes; each may be missing
    digest              SHA-256 of all of it; older files have none
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
import safetensors
from safetensors.numpy import save

from mixdtp_jax.models.config import AnyConfig, as_mapping, make_model_config
from mixdtp_jax.runtime.files import DAMAGED, check_format, replacing
from mixdtp_jax.weights.state_dict import to_torch

FORMAT = 1
NOTES = ('recipe', 'data', 'results', 'licence')
_FORMAT_KEY = 'mixdtp_jax_format'
_DIGEST_KEY = 'digest'
_FLOATS = ('F16', 'BF16', 'F32', 'F64')


def write_safetensors(
  path: str | os.PathLike,
  cfg: AnyConfig,
  params: dict,
  *,
  dtype: str = 'float32',
  notes: Mapping[str, str] | None = None,
) -> None:
  """Writes weights as a safetensors file, whole or not at all.

  A file that exists is replaced. `dtype`, float32 or float16, is that of the
  values in the file; `notes` are texts under some of the names in NOTES.

  Raises:
    ValueError: a value is not finite (float16 ends at 65504), a note has
      another name, or the parameters are not those of `cfg`.
  """
  notes = dict(notes or {})
  if unknown := sorted(set(notes) - set(NOTES)):
    raise ValueError(
      f'unknown notes {", ".join(unknown)}: choose from {", ".join(NOTES)}'
    )
  tensors = {}
  for name, value in to_torch(params, cfg).items():
    with np.errstate(over='ignore'):
      tensors[name] = value.astype(dtype)
    if not np.isfinite(tensors[name]).all():
      raise ValueError(f'{name} is not finite as {dtype}: nothing was written')
  metadata = {
    _FORMAT_KEY: str(FORMAT),
    'model': json.dumps(as_mapping(cfg)),
    **notes,
  }
  metadata[_DIGEST_KEY] = _digest(tensors, metadata)
  with replacing(path) as temporary:
    # save_file() would make a file that its owner alone can read.
    pathlib.Path(temporary).write_bytes(save(tensors, metadata))


def read_safetensors(
  path: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], AnyConfig | None]:
  """Reads the tensors of a file, and the network that its metadata name.

  The tensors are float32, by name; the configuration is None in a file that is
  not ours. Nothing of either is checked against the other.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is damaged, is no safetensors file, was made by a newer
      version, or holds other values than floats.
  """
  metadata = _metadata(path)
  cfg = None
  if _FORMAT_KEY in metadata:
    text = metadata[_FORMAT_KEY]
    number = int(text) if text.isdecimal() and len(text) < 10 else text
    check_format(path, number, FORMAT)
    try:
      cfg = make_model_config(json.loads(metadata['model']))
    except DAMAGED as error:
      raise ValueError(
        f'{path}: its metadata do not name a network ({error}): get or make '
        'the file again'
      ) from None
  with safetensors.safe_open(path, framework='np') as file:
    stored = {}
    for name in file.keys():  # noqa: SIM118
      kind = file.get_slice(name).get_dtype()
      if kind not in _FLOATS:
        raise ValueError(
          f'{path}: {name} has values of type {kind}; weights are '
          f'{", ".join(_FLOATS)}'
        )
      stored[name] = file.get_tensor(name)
  if cfg and metadata.pop(_DIGEST_KEY, None) not in (
    None,
    _digest(stored, metadata),
  ):
    raise ValueError(f'{path} is damaged: get or make it again')
  with np.errstate(over='ignore'):
    return {name: x.astype(np.float32) for name, x in stored.items()}, cfg


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping) -> str:
  """Returns the SHA-256 of tensors in their types, and of the metadata."""
  found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
  for name, x in sorted(tensors.items()):
    found.update(f'{name} {x.dtype} {x.shape}'.encode() + x.tobytes())
  return found.hexdigest()


def read_notes(path: pathlib.Path) -> dict[str, str]:
  """Reads the notes of a file; only .safetensors files have some."""
  metadata = _metadata(path) if path.suffix == '.safetensors' else {}
  return {name: metadata[name] for name in NOTES if name in metadata}


def _metadata(path) -> dict[str, str]:
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file')
  try:
    with safetensors.safe_open(path, framework='np') as file:
      return file.metadata() or {}
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path} is damaged or no safetensors file ({error}): get or make it '
      'again'
    ) from None
