"""PyTorch files (.pth). Reading and writing them needs the package torch."""

import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from mixdtp_jax.runtime.files import replacing

# Where training programs put a state dict; the first of these is taken.
_WRAPPERS = (
  'params_ema', 'params', 'state_dict', 'model_state_dict', 'model', 'net'
)  # fmt: skip


def read_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a PyTorch state dict, name -> float32; nothing in it is executed.

  A state dict that lies under a key such as 'params' is taken out, and a line
  says so. Averaged weights come first, as BasicSR saves both.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file holds anything but named tensors.
  """
  import torch

  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file')
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # damaged files cause some
      loaded = torch.load(path, map_location='cpu', weights_only=True)
  # PyTorch raises nearly anything for a file that it did not write.
  except Exception as error:  # noqa: BLE001
    raise ValueError(
      f'{path} is damaged or holds more than weights, and was not loaded: '
      f'{str(error).partition(chr(10))[0]}'
    ) from None
  keys: list[str] = []
  while len(keys) < 3 and (key := _wrapper(loaded)):
    keys.append(key)
    loaded = loaded[key]
  if not isinstance(loaded, Mapping) or not all(
    isinstance(name, str) and isinstance(value, torch.Tensor)
    for name, value in loaded.items()
  ):
    raise ValueError(
      f'{path} is no state dict (names to tensors): save model.state_dict() '
      'in PyTorch'
    )
  if keys:
    logging.info('%s: took the weights under %s', path, ' / '.join(keys))
  try:
    return {n: value.detach().float().numpy() for n, value in loaded.items()}
  except Exception as error:  # noqa: BLE001 - sparse tensors, or without data
    raise ValueError(f'{path} has tensors that are no plain numbers') from error


def _wrapper(loaded: Any) -> str | None:
  if not isinstance(loaded, Mapping):
    return None
  keys = (key for key in _WRAPPERS if isinstance(loaded.get(key), Mapping))
  return next(keys, None)


def write_pth(
  state_dict: Mapping[str, np.ndarray], path: str | os.PathLike
) -> None:
  """Writes a state dict for PyTorch's load_state_dict; see `read_pth`."""
  import torch

  tensors = {
    name: torch.from_numpy(np.array(value))
    for name, value in state_dict.items()
  }
  with replacing(path) as temporary:
    torch.save(tensors, temporary)
