"""Weights from one form to another: run, folder, .pth, .safetensors."""

import os
import pathlib

import jax

from mixdtp_jax.runtime.files import local_path
from mixdtp_jax.weights import pth, shipped
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.safetensors_file import read_notes, write_safetensors
from mixdtp_jax.weights.state_dict import to_torch

_ENDINGS = ('.safetensors', '.pth', '.pt')


def convert(
  source: str | os.PathLike,
  target: str | os.PathLike,
  *,
  steps: int | None = None,
  dtype: str = 'float32',
) -> str:
  """Writes weights in another form, and returns a line that says what.

  The ending of `target` names the form: .pth or .pt for PyTorch, .safetensors,
  or none for a weights folder. `source` and `steps` are those of
  `load_weights`, whose errors are raised. `dtype`, float32 or float16, is that
  of the values in a .safetensors file, which keeps the notes of such a source.

  Raises:
    FileExistsError: the target exists.
    ValueError: the target has another ending, or `dtype` is float16 and the
      target is no .safetensors file.
  """
  path = pathlib.Path(local_path(target))
  if os.path.lexists(path):
    raise FileExistsError(f'{path} exists already: choose another target')
  if dtype != 'float32' and path.suffix != '.safetensors':
    raise ValueError(f'{path}: only .safetensors files can be {dtype}')
  if path.suffix[1:].isalpha() and path.suffix not in _ENDINGS:
    raise ValueError(
      f'{path} ends in {path.suffix}: choose {", ".join(_ENDINGS)}, or for a '
      'weights folder a name without an ending'
    )
  cfg, params = load_weights(source, steps=steps)
  if path.suffix == '.safetensors':
    notes = read_notes(shipped.locate(source))
    write_safetensors(path, cfg, params, dtype=dtype, notes=notes)
  elif path.suffix in _ENDINGS:
    pth.write_pth(to_torch(params, cfg), path)
  else:
    from mixdtp_jax.weights.folder import save_weights  # orbax is slow

    save_weights(path, cfg, params)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  note = f' with steps={cfg.steps}' if hasattr(cfg, 'steps') else ''
  return f'{source} -> {path}: {count:,} parameters of {cfg.name}{note}'
