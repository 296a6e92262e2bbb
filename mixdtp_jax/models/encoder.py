"""Multi-scale feature extraction (MFE), the encoder."""

from typing import NamedTuple

import flax.linen as nn
import jax

from mixdtp_jax.models.config import MixDTPConfig
from mixdtp_jax.models.layers import Conv3x3
from mixdtp_jax.models.transformer import TransformerStage
from mixdtp_jax.ops import resizing


class Features(NamedTuple):
  """What the encoder hands to the decoder, finest level first.

  Attributes:
    inputs: what entered levels 2, 3 and 4 (before their blocks).
    outputs: what left levels 1, 2, 3 and 4; level i is (B, H/2^(i-1),
      W/2^(i-1), width * 2^(i-1)).
  """

  inputs: tuple[jax.Array, ...]
  outputs: tuple[jax.Array, ...]


class Downsample(nn.Module):
  """Half the size, twice the channels: (B, H, W, C) to (B, H/2, W/2, 2C)."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Halves the channels, then moves 2x2 pixels into channels."""
    return resizing.pixel_unshuffle(Conv3x3(x.shape[-1] // 2, name='conv')(x))


class MFE(nn.Module):
  """Four levels of transformer blocks, each at half the size of the last."""

  cfg: MixDTPConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> Features:
    """Extracts the features of an embedded image (B, H, W, width)."""
    inputs, outputs = [], []
    for level, blocks in enumerate(self.cfg.encoder_blocks):
      if level:
        x = Downsample(name=f'down{level}_{level + 1}')(x)
        inputs.append(x)
      x = TransformerStage(self.cfg, level, blocks, name=f'stage{level + 1}')(x)
      outputs.append(x)
    return Features(tuple(inputs), tuple(outputs))
