"""Parameter trees from and to PyTorch state dicts.

The names are the published ones (see names.py). The values are the same
numbers in another layout, so a conversion and its inverse change no bit.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.shapes import abstract_params
from mixdtp_jax.weights.names import slots


def from_torch(state_dict: Mapping[str, np.ndarray], cfg: AnyConfig) -> dict:
  """Converts a state dict, published name -> array, to a parameter tree.

  The tree is that of `make_network(cfg)`: NumPy arrays of the state dict's
  dtype. ValueError if names are missing or unknown, or a shape is wrong.
  """
  wanted = slots(cfg)
  _check_names(set(state_dict), set(wanted))
  shapes = _flat(abstract_params(cfg))
  leaves: dict[tuple[str, ...], np.ndarray] = {}
  filled = dict.fromkeys(shapes, 0)
  for name, (path, part) in wanted.items():
    value = np.asarray(state_dict[name])
    leaf = leaves.setdefault(path, np.empty(shapes[path].shape, value.dtype))
    expected = to_layout(name, leaf[part]).shape
    if value.shape != expected:
      raise ValueError(
        f'{name} has shape {value.shape}, the network needs {expected}'
      )
    leaf[part] = _from_layout(name, value)
    filled[path] += value.size
  # Fails only if names.py leaves out a parameter.
  assert all(filled[path] == shapes[path].size for path in shapes)
  tree = jax.tree.structure(abstract_params(cfg))
  return jax.tree.unflatten(tree, [leaves[path] for path in shapes])


def to_torch(params: dict, cfg: AnyConfig) -> dict[str, np.ndarray]:
  """Converts a parameter tree (or a tree of gradients) to a state dict.

  It maps published names to contiguous arrays in PyTorch's layout. ValueError
  if the tree does not belong to `make_network(cfg)`.
  """
  leaves, shapes = _flat(params), _flat(abstract_params(cfg))
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
    name: np.ascontiguousarray(to_layout(name, arrays[path][part]))
    for name, (path, part) in slots(cfg).items()
  }


def _flat(tree: dict) -> dict[tuple[str, ...], Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {tuple(key.key for key in path): leaf for path, leaf in leaves}


def _from_layout(name: str, tensor: np.ndarray) -> np.ndarray:
  if name.endswith('temperature'):
    return tensor.reshape(-1)  # (heads, 1, 1)
  if tensor.ndim != 4:
    return tensor
  kernel = tensor.transpose(2, 3, 1, 0)  # (out, in, kh, kw)
  return kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel


def to_layout(name: str, part: np.ndarray) -> np.ndarray:
  """Returns a parameter in its published layout, which its name decides.

  Kernels become (outputs, inputs, height, width), temperatures (heads, 1, 1).
  """
  if name.endswith('temperature'):
    return part.reshape(-1, 1, 1)
  if part.ndim == 2:
    part = part[None, None]
  return part.transpose(3, 2, 0, 1) if part.ndim == 4 else part


def _check_names(found: set[str], expected: set[str]) -> None:
  problems = []
  both = {'missing': expected - found, 'unknown': found - expected}
  for what, names in both.items():
    if names:
      shown = ', '.join(sorted(names)[:5]) + (', ...' if len(names) > 5 else '')
      problems.append(f'{len(names)} {what} ({shown})')
  if problems:
    raise ValueError(
      f'the weights do not fit the network: {"; ".join(problems)}'
    )
