"""Weights that ship with the package, by name: shipped/NAME.safetensors."""

import os
import pathlib

from mixdtp_jax.runtime.files import local_path
from mixdtp_jax.runtime.options import did_you_mean

FOLDER = pathlib.Path(__file__).with_name('shipped')


def names() -> list[str]:
  """Lists the names of the shipped weights."""
  return sorted(path.stem for path in FOLDER.glob('*.safetensors'))


def locate(source: str | os.PathLike) -> pathlib.Path:
  """Returns the absolute path of weights; ValueError for a URL.

  A string that is the name of shipped weights means these, whatever lies in the
  current folder: `general` is shipped; `./general` and any pathlib.Path are
  paths.
  """
  if isinstance(source, str) and source in names():
    return FOLDER / f'{source}.safetensors'
  return pathlib.Path(local_path(source)).absolute()


def not_found(path: pathlib.Path) -> FileNotFoundError:
  """Returns the error of a path without weights."""
  nearest = did_you_mean(os.path.basename(path), names()) or '.'
  shipped = f' ({", ".join(names())})' if names() else ' (none in this version)'
  return FileNotFoundError(
    f'{path}: no weights there{nearest} Give the name of shipped weights'
    f'{shipped}, the workdir of a training run that has saved a checkpoint '
    '(mixdtp train), or a .safetensors file, a .pth file, or a weights folder '
    '(mixdtp convert)'
  )
