"""Multi-scale feature extraction (MFE), the encoder."""

from typing import NamedTuple

import flax.linen as nn
import jax

from mixdtp_jax.models.config import UNetConfig
from mixdtp_jax.models.layers import Conv3x3
from mixdtp_jax.models.transformer import TransformerStage
from mixdtp_jax.ops import resizing


class Features(NamedTuple):
  """The encoder's feature images, finest level first.

  Level i of 0 to 3 is (B, H/2^i, W/2^i, width * 2^i).
  """

  inputs: tuple[jax.Array, ...]  # of levels 1, 2 and 3, before their blocks
  outputs: tuple[jax.Array, ...]  # of levels 0, 1, 2 and 3, after their blocks


class Downsample(nn.Module):
  """A layer to half the size: (B, H, W, C) to (B, H/2, W/2, 2C)."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Halves the channels, then moves 2x2 pixels into channels."""
    return resizing.pixel_unshuffle(Conv3x3(x.shape[-1] // 2, name='conv')(x))


class MFE(nn.Module):
  """The encoder: four levels of transformer blocks, each at half the size."""

  cfg: UNetConfig

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
