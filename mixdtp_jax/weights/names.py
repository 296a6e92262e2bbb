"""Published names of parameters, 550 of MixDTPNet, and their places here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixdtp_jax.models.config import (
  AnyConfig,
  MixDTPConfig,
  PReNetConfig,
  RestormerConfig,
)
from mixdtp_jax.models.shapes import RESIDUAL_BLOCKS

# The place of a parameter: the path of a leaf, and an index into it.
Slot = tuple[tuple[str, ...], Any]

# The module of each transformer stage, by its path in the parameter tree.
MIXDTP_STAGES = {
  'conv1_2': ('mfe', 'stage1'),
  'conv2_3': ('mfe', 'stage2'),
  'conv3_4': ('mfe', 'stage3'),
  'conv4_L': ('mfe', 'stage4'),
  'conv4_3_HSI': ('mhs', 'stage3'),
  'conv3_2_HSI': ('mhs', 'stage2'),
  'conv2_1_HSI': ('mhs', 'stage1'),
  'outc': ('mhs', 'refinement'),
}
RESTORMER_STAGES = {
  'encoder_level1': ('mfe', 'stage1'),
  'encoder_level2': ('mfe', 'stage2'),
  'encoder_level3': ('mfe', 'stage3'),
  'latent': ('mfe', 'stage4'),
  'decoder_level3': ('stage3',),
  'decoder_level2': ('stage2',),
  'decoder_level1': ('stage1',),
  'refinement': ('refinement',),
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


def slots(cfg: AnyConfig) -> dict[str, Slot]:
  """Published name -> slot, for every parameter of a network."""
  found = {} if isinstance(cfg, PReNetConfig) else _unet_slots(cfg)
  if not isinstance(cfg, RestormerConfig) and cfg.steps:
    found |= _progressive_slots(cfg.recurrent_width)
  return found


def _unet_slots(cfg: MixDTPConfig | RestormerConfig) -> dict[str, Slot]:
  ours = isinstance(cfg, MixDTPConfig)
  decoder: tuple[str, ...] = ('mhs',) if ours else ()
  whole = {'conv_final' if ours else 'output': (*decoder, 'to_image')}
  if isinstance(cfg, MixDTPConfig) and cfg.detail_dilation:
    whole['patch_embed.transform1.0'] = ('detail_dilation', 'zoom')
    whole['patch_embed.transform2'] = ('detail_dilation', 'embed')
  else:
    whole['patch_embed.proj'] = ('embed',)
  for i in (1, 2, 3):
    down, up = f'down{i}_{i + 1}', f'up{i + 1}_{i}'
    whole[f'{down}.body.0'] = ('mfe', down, 'conv')
    whole[f'{up}.body.0'] = (*decoder, up, 'conv')
    if ours or i > 1:
      whole[f'reduce_chan_level{i}'] = (*decoder, f'reduce{i}')
  found: dict[str, Slot] = {
    f'{name}.weight': ((*path, 'kernel'), ...) for name, path in whole.items()
  }
  stages = MIXDTP_STAGES if ours else RESTORMER_STAGES
  counts = *cfg.encoder_blocks, *reversed(cfg.decoder_blocks)
  for (module, stage), count in zip(
    stages.items(), (*counts, cfg.refinement_blocks), strict=True
  ):
    for block in range(count):  # they have numbers there, and are stacked here
      for suffix, path in _BLOCK.items():
        slot = (*stage, 'blocks', *path), block
        found[f'{module}.{block}.{suffix}'] = slot
  return found


def _progressive_slots(width: int) -> dict[str, Slot]:
  convs: dict[str, tuple[str, Any]] = {
    'conv0.0': ('conv_in', ...),
    'conv.0': ('conv_out', ...),
  }
  for block in range(1, RESIDUAL_BLOCKS + 1):
    convs[f'res_conv{block}.0'] = (f'residual{block}_1', ...)
    convs[f'res_conv{block}.2'] = (f'residual{block}_2', ...)
  for number, gate in enumerate('ifgo'):  # parts of one convolution here
    part = (..., slice(number * width, (number + 1) * width))
    convs[f'conv_{gate}.0'] = ('gates', part)
  found: dict[str, Slot] = {}
  for name, (module, part) in convs.items():
    path = ('progressive', 'step', module)
    found[f'{name}.weight'] = (*path, 'kernel'), part
    found[f'{name}.bias'] = (*path, 'bias'), part
  return found


# One of them is in every network's state dict.
_MARKERS = ('conv_final.weight', 'output.weight', 'conv0.0.weight')
# Modules that hold a network: DataParallel, torch.compile, BasicSR, Lightning.
_HOLDERS = {'module', '_orig_mod', 'net', 'model', ''}


def plain_names(
  state_dict: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], str]:
  """Returns the tensors under a prefix such as 'module.', and this prefix.

  Tensors that lie beside the network, such as those of a loss, are left out.
  """
  prefixes = (
    name.removesuffix(marker)
    for name in state_dict
    for marker in _MARKERS
    if name.endswith(marker)
  )
  known = [p for p in prefixes if _HOLDERS.issuperset(p.split('.'))]
  prefix = min(known, key=len, default='')
  found = {
    name.removeprefix(prefix): value
    for name, value in state_dict.items()
    if name.startswith(prefix)
  }
  return found, prefix


def infer_config(state_dict: Mapping[str, np.ndarray]) -> AnyConfig:
  """Infers the network that a state dict belongs to from names and shapes.

  No shape tells the iterations of the progressive refinement: they are the
  published ones, 3 of MixDTPNet and 6 of PReNet.

  Raises:
    ValueError: it is not a state dict of these networks.
  """
  shapes = {name: np.shape(value) for name, value in state_dict.items()}
  recurrent: dict[str, Any] = {}
  if 'conv0.0.weight' in shapes:
    recurrent['recurrent_width'] = _size(shapes, 'conv0.0.weight', 0)
  if 'output.weight' in shapes:
    width = _size(shapes, 'output.weight', 1) // 2
    return RestormerConfig(**_unet_fields(shapes, width, RESTORMER_STAGES))
  if 'conv_final.weight' in shapes:
    width = _size(shapes, 'conv_final.weight', 1)
    return MixDTPConfig(
      **_unet_fields(shapes, width, MIXDTP_STAGES),
      **(recurrent or {'steps': 0}),
      detail_dilation='patch_embed.proj.weight' not in shapes,
    )
  if recurrent:
    return PReNetConfig(**recurrent)
  raise ValueError(
    'not weights of MixDTPNet, Restormer or PReNet: they have neither '
    'conv_final.weight nor output.weight nor conv0.0.weight'
  )


def _size(shapes: dict, name: str, axis: int) -> int:
  """Returns one size of an array that every network of its kind has."""
  try:
    return shapes[name][axis]
  except (KeyError, IndexError):
    raise ValueError(
      f'not weights of this network: {name} is missing or has another shape'
    ) from None


def _unet_fields(shapes: dict, width: int, stages: dict) -> dict[str, Any]:
  blocks = {tuple(name.split('.')[:2]) for name in shapes}
  counts = [
    sum(b[0] == stage and b[-1].isdigit() for b in blocks) for stage in stages
  ]
  encoder = list(stages)[:4]
  hidden = [_size(shapes, f'{m}.0.ffn.project_out.weight', 1) for m in encoder]
  return {
    'width': width,
    'encoder_blocks': tuple(counts[:4]),
    'decoder_blocks': tuple(reversed(counts[4:7])),
    'refinement_blocks': counts[7],
    'heads': tuple(
      _size(shapes, f'{m}.0.attn.temperature', 0) for m in encoder
    ),
    'ffn_expansion': _expansion(width, hidden),
  }


def _expansion(width: int, hidden: list[int]) -> float:
  widths = [width * 2**level for level in range(4)]
  published = MixDTPConfig().ffn_expansion
  factors = [published]
  if width:  # the coarsest level, of the finest grid, decides
    factors += [hidden[3] / widths[3], (hidden[3] + 0.5) / widths[3]]
  for factor in factors:
    if [int(w * factor) for w in widths] == hidden:
      return factor
  raise ValueError(f'no one expansion gives {hidden} channels from {widths}')
