"""Weights to and from the PyTorch versions of the networks.

The names are the published ones (see `torch_names`); the values are the same
numbers in another layout, so that a conversion and its inverse change no bit.
PyTorch itself is needed only to read and write .pth files:
`pip install torch`.
"""

import os
import pathlib
import pickle
import tempfile
from collections.abc import Mapping

import flax.traverse_util
import numpy as np

from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights.names import slots


def _from_layout(name: str, tensor: np.ndarray) -> np.ndarray:
  """A PyTorch tensor in the layout of its slot."""
  if name.endswith('temperature'):
    return tensor.reshape(-1)  # (heads, 1, 1)
  if tensor.ndim != 4:
    return tensor
  kernel = tensor.transpose(2, 3, 1, 0)  # (out, in, kh, kw)
  return kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel


def _to_layout(name: str, part: np.ndarray) -> np.ndarray:
  """The inverse of `_from_layout`."""
  if name.endswith('temperature'):
    return part.reshape(-1, 1, 1)
  if part.ndim == 2:
    part = part[None, None]
  return part.transpose(3, 2, 0, 1) if part.ndim == 4 else part


def from_torch(state_dict: Mapping[str, np.ndarray], cfg: AnyConfig) -> dict:
  """Parameters of `make_network(cfg)` from a PyTorch state dict.

  Args:
    state_dict: published name -> array.
    cfg: the network.

  Returns:
    The parameter tree, NumPy arrays of the state dict's dtype.

  Raises:
    ValueError: names are missing or unknown, or a shape is another one; the
      message lists them.
  """
  places = slots(cfg)
  _check_names(set(state_dict), set(places))
  shapes = flax.traverse_util.flatten_dict(abstract_params(cfg))
  leaves, filled = {}, dict.fromkeys(shapes, 0)
  for name, (path, part) in places.items():
    value = np.asarray(state_dict[name])
    leaf = leaves.setdefault(path, np.empty(shapes[path].shape, value.dtype))
    expected = _to_layout(name, leaf[part]).shape
    if value.shape != expected:
      raise ValueError(
        f'{name} has shape {value.shape}, the network needs {expected}'
      )
    leaf[part] = _from_layout(name, value)
    filled[path] += value.size
  # A mistake of this module, not of the weights: a leaf without a name.
  assert all(filled[path] == shapes[path].size for path in shapes)
  return flax.traverse_util.unflatten_dict(leaves)


def to_torch(params: dict, cfg: AnyConfig) -> dict[str, np.ndarray]:
  """The PyTorch state dict of a parameter tree (or of a gradient's tree).

  Args:
    params: as `make_network(cfg).init(...)['params']`.
    cfg: the network.

  Returns:
    Published name -> contiguous array in PyTorch's layout.

  Raises:
    ValueError: the tree is not one of `make_network(cfg)`.
  """
  leaves = flax.traverse_util.flatten_dict(params)
  shapes = flax.traverse_util.flatten_dict(abstract_params(cfg))
  _check_names(
    {'/'.join(path) for path in leaves}, {'/'.join(path) for path in shapes}
  )
  for path, leaf in leaves.items():
    if leaf.shape != shapes[path].shape:
      raise ValueError(
        f'{"/".join(path)} has shape {leaf.shape}, '
        f'the network needs {shapes[path].shape}'
      )
  arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
  return {
    name: np.ascontiguousarray(_to_layout(name, arrays[path][part]))
    for name, (path, part) in slots(cfg).items()
  }


def _check_names(found: set[str], expected: set[str]) -> None:
  problems = []
  for what, names in (
    ('missing', sorted(expected - found)),
    ('unknown', sorted(found - expected)),
  ):
    if names:
      shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
      problems.append(f'{len(names)} {what} ({shown})')
  if problems:
    raise ValueError(
      f'the weights do not fit the network: {"; ".join(problems)}'
    )


def read_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a PyTorch state dict; nothing in the file is executed.

  Returns:
    Published name -> float32 array. A state dict that lies under 'params', as
    BasicSR and Restormer save it, or under 'state_dict' is taken out, and
    DataParallel's prefix "module." is taken off.

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
  except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
    raise ValueError(
      f'{path} is damaged or holds more than weights, and was not loaded: '
      f'{"".join(str(error).splitlines()[:1])}'
    ) from None
  for key in ('params', 'state_dict'):
    if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
      loaded = loaded[key]
  if not isinstance(loaded, Mapping) or not all(
    isinstance(value, torch.Tensor) for value in loaded.values()
  ):
    raise ValueError(
      f'{path} is no state dict (names to tensors); save '
      'model.state_dict() from PyTorch'
    )
  if all(name.startswith('module.') for name in loaded):
    loaded = {n.removeprefix('module.'): v for n, v in loaded.items()}
  return {name: value.float().numpy() for name, value in loaded.items()}


def write_pth(
  state_dict: Mapping[str, np.ndarray], path: str | os.PathLike
) -> None:
  """Writes a state dict that PyTorch's load_state_dict takes.

  Raises:
    ImportError: PyTorch is not installed.
  """
  torch = _import_torch()
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  tensors = {
    name: torch.from_numpy(np.array(value))
    for name, value in state_dict.items()
  }
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    partial = pathlib.Path(folder) / path.name
    torch.save(tensors, partial)
    os.replace(partial, path)


def _import_torch():
  try:
    import torch
  except ImportError:
    raise ImportError(
      'reading and writing .pth files needs PyTorch: pip install torch'
    ) from None
  return torch
