"""Weights to and from the PyTorch version of the network.

The names are those of the published PyTorch code (550 for the default
config); the values are the same numbers in another layout, so that a
conversion and its inverse change no bit. PyTorch itself is needed only to read
and write .pth files: `pip install torch`.
"""

import os
import pathlib
import pickle
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import numpy as np

from mixdtp_jax.model.config import ModelConfig
from mixdtp_jax.model.network import abstract_params
from mixdtp_jax.model.progressive import RESIDUAL_BLOCKS

# The module of each transformer stage, by its path in the parameter tree.
STAGES = {
  'conv1_2': ('mfe', 'stage1'),
  'conv2_3': ('mfe', 'stage2'),
  'conv3_4': ('mfe', 'stage3'),
  'conv4_L': ('mfe', 'stage4'),
  'conv4_3_HSI': ('mhs', 'stage3'),
  'conv3_2_HSI': ('mhs', 'stage2'),
  'conv2_1_HSI': ('mhs', 'stage1'),
  'outc': ('mhs', 'refinement'),
}
_BLOCK = {
  'norm1.body.weight': ('norm1', 'scale'),
  'norm1.body.bias': ('norm1', 'bias'),
  'attn.temperature': ('attention', 'temperature'),
  'attn.qkv.weight': ('attention', 'qkv', 'kernel'),
  'attn.qkv_dwconv.weight': ('attention', 'qkv_depthwise', 'kernel'),
  'attn.project_out.weight': ('attention', 'project_out', 'kernel'),
  'norm2.body.weight': ('norm2', 'scale'),
  'norm2.body.bias': ('norm2', 'bias'),
  'ffn.project_in.weight': ('feed_forward', 'project_in', 'kernel'),
  'ffn.dwconv.weight': ('feed_forward', 'depthwise', 'kernel'),
  'ffn.project_out.weight': ('feed_forward', 'project_out', 'kernel'),
}


class _Slot(NamedTuple):
  """Where a PyTorch parameter lives: `part` of the leaf at `path`."""

  path: tuple[str, ...]
  part: Any  # an index into the leaf


def _slots(cfg: ModelConfig) -> dict[str, _Slot]:
  """PyTorch name -> slot, for every parameter of a network."""
  slots = {}

  def whole(name, *path):
    slots[name] = _Slot(path, ...)

  if cfg.detail_dilation:
    dilation = 'detail_dilation'
    whole('patch_embed.transform1.0.weight', dilation, 'zoom', 'kernel')
    whole('patch_embed.transform2.weight', dilation, 'embed', 'kernel')
  else:
    whole('patch_embed.proj.weight', 'embed', 'kernel')
  for i in (1, 2, 3):
    down, up = f'down{i}_{i + 1}', f'up{i + 1}_{i}'
    whole(f'{down}.body.0.weight', 'mfe', down, 'conv', 'kernel')
    whole(f'{up}.body.0.weight', 'mhs', up, 'conv', 'kernel')
    whole(f'reduce_chan_level{i}.weight', 'mhs', f'reduce{i}', 'kernel')
  whole('conv_final.weight', 'mhs', 'to_image', 'kernel')
  for module, (box, stage) in STAGES.items():
    for block in range(_blocks(cfg, box, stage)):
      for suffix, path in _BLOCK.items():
        name = f'{module}.{block}.{suffix}'
        slots[name] = _Slot((box, stage, 'blocks', *path), block)
  if cfg.steps:
    slots |= _progressive_slots(cfg.recurrent_width)
  return slots


def _blocks(cfg, box, stage):
  if stage == 'refinement':
    return cfg.refinement_blocks
  blocks = cfg.encoder_blocks if box == 'mfe' else cfg.decoder_blocks
  return blocks[int(stage.removeprefix('stage')) - 1]


def _progressive_slots(width: int) -> dict[str, _Slot]:
  """PReNet's names; its four gates are parts of one convolution here."""
  convs = {'conv0.0': ('conv_in', ...), 'conv.0': ('conv_out', ...)}
  for block in range(1, RESIDUAL_BLOCKS + 1):
    convs[f'res_conv{block}.0'] = (f'residual{block}_1', ...)
    convs[f'res_conv{block}.2'] = (f'residual{block}_2', ...)
  for number, gate in enumerate('ifgo'):
    part = (..., slice(number * width, (number + 1) * width))
    convs[f'conv_{gate}.0'] = ('gates', part)
  slots = {}
  for name, (module, part) in convs.items():
    path = ('progressive', 'step', module)
    slots[f'{name}.weight'] = _Slot((*path, 'kernel'), part)
    slots[f'{name}.bias'] = _Slot((*path, 'bias'), part)
  return slots


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


def from_torch(state_dict: Mapping[str, np.ndarray], cfg: ModelConfig) -> dict:
  """Parameters of `MixDTP(cfg)` from a PyTorch state dict.

  Args:
    state_dict: published name (with or without DataParallel's "module."
      prefix) -> array.
    cfg: the network.

  Returns:
    The parameter tree, NumPy arrays of the state dict's dtype.

  Raises:
    ValueError: names are missing or unknown, or a shape is another one; the
      message lists them.
  """
  state_dict = _without_prefix(state_dict)
  slots = _slots(cfg)
  _check_names(set(state_dict), set(slots))
  shapes = flax.traverse_util.flatten_dict(abstract_params(cfg))
  leaves, filled = {}, dict.fromkeys(shapes, 0)
  for name, (path, part) in slots.items():
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


def to_torch(params: dict, cfg: ModelConfig) -> dict[str, np.ndarray]:
  """The PyTorch state dict of a parameter tree (or of a gradient's tree).

  Args:
    params: as `MixDTP(cfg).init(...)['params']`.
    cfg: the network.

  Returns:
    Published name -> contiguous array in PyTorch's layout.

  Raises:
    ValueError: the tree is not one of `MixDTP(cfg)`.
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
    for name, (path, part) in _slots(cfg).items()
  }


def _without_prefix(state_dict):
  if all(name.startswith('module.') for name in state_dict):
    return {n.removeprefix('module.'): v for n, v in state_dict.items()}
  return state_dict


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


def infer_config(
  state_dict: Mapping[str, np.ndarray], *, steps: int | None = None
) -> ModelConfig:
  """The network that a PyTorch state dict belongs to, read off its shapes.

  Args:
    state_dict: as for `from_torch`.
    steps: iterations of the progressive refinement, which no shape tells;
      None is the published 3.

  Raises:
    ValueError: it is no state dict of this network.
  """
  shapes = {n: np.shape(v) for n, v in _without_prefix(state_dict).items()}

  def blocks(module):
    indices = {
      int(name.split('.')[1])
      for name in shapes
      if name.startswith(f'{module}.') and name.split('.')[1].isdigit()
    }
    return len(indices)

  encoder = ('conv1_2', 'conv2_3', 'conv3_4', 'conv4_L')
  try:
    width = shapes['conv_final.weight'][1]
    hidden = [shapes[f'{m}.0.ffn.project_out.weight'][1] for m in encoder]
    heads = tuple(shapes[f'{m}.0.attn.temperature'][0] for m in encoder)
  except KeyError as error:
    raise ValueError(
      f'not weights of this network: {error.args[0]} is missing'
    ) from None
  refines = 'conv0.0.weight' in shapes
  if not refines and steps:
    raise ValueError(f'steps = {steps}: the weights have no refinement')
  default = ModelConfig()
  return ModelConfig(
    width=width,
    encoder_blocks=tuple(blocks(module) for module in encoder),
    decoder_blocks=tuple(
      blocks(m) for m in ('conv2_1_HSI', 'conv3_2_HSI', 'conv4_3_HSI')
    ),
    refinement_blocks=blocks('outc'),
    heads=heads,
    ffn_expansion=_expansion(width, hidden),
    recurrent_width=(
      shapes['conv0.0.weight'][0] if refines else default.recurrent_width
    ),
    steps=(default.steps if steps is None else steps) if refines else 0,
    detail_dilation='patch_embed.proj.weight' not in shapes,
  )


def _expansion(width: int, hidden: list[int]) -> float:
  """A factor that gives each level its hidden channels when rounded down."""
  widths = [width * 2**level for level in range(4)]
  published = ModelConfig().ffn_expansion
  middle = (hidden[3] + 0.5) / widths[3]  # the finest grid has the last word
  for factor in (published, hidden[3] / widths[3], middle):
    if [int(w * factor) for w in widths] == hidden:
      return factor
  raise ValueError(f'no one expansion gives {hidden} channels from {widths}')


def read_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a PyTorch state dict; nothing in the file is executed.

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
  if not isinstance(loaded, Mapping) or not all(
    isinstance(value, torch.Tensor) for value in loaded.values()
  ):
    raise ValueError(
      f'{path} is no state dict (names to tensors); save '
      'model.state_dict() from PyTorch'
    )
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
