"""PyTorch's .pth files. Reading and writing them needs PyTorch."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from mixdtp_jax.runtime.files import replacing


def read_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a PyTorch state dict; nothing in the file is executed.

  A state dict that lies under 'params', as BasicSR and Restormer save it, or
  under 'state_dict' is taken out.

  Returns:
    Name -> float32 array.

  Raises:
    ImportError: PyTorch is not installed.
    FileNotFoundError: there is no such file.
    ValueError: the file holds anything but named tensors.
  """
  torch = _import_torch()
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file')
  try:
    loaded = torch.load(path, map_location='cpu', weights_only=True)
  # PyTorch raises nearly anything for a file that it did not write.
  except Exception as error:  # noqa: BLE001
    raise ValueError(
      f'{path} is damaged or holds more than weights, and was not loaded: '
      f'{str(error).partition(chr(10))[0]}'
    ) from None
  for key in ('params', 'state_dict'):
    if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
      loaded = loaded[key]
  if not isinstance(loaded, Mapping) or not all(
    isinstance(name, str) and isinstance(value, torch.Tensor)
    for name, value in loaded.items()
  ):
    raise ValueError(
      f'{path} is no state dict (names to tensors): save model.state_dict() '
      'in PyTorch'
    )
  return {n: value.detach().float().numpy() for n, value in loaded.items()}


def write_pth(
  state_dict: Mapping[str, np.ndarray], path: str | os.PathLike
) -> None:
  """Writes a state dict that PyTorch's load_state_dict takes.

  Raises:
    ImportError: PyTorch is not installed.
  """
  torch = _import_torch()
  tensors = {
    name: torch.from_numpy(np.array(value))
    for name, value in state_dict.items()
  }
  with replacing(path) as temporary:
    torch.save(tensors, temporary)


def _import_torch():
  try:
    import torch
  except ImportError:
    raise ImportError(
      'reading and writing .pth files needs PyTorch: pip install torch'
    ) from None
  return torch
