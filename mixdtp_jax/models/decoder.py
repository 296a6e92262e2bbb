"""Decoders: MixDTPNet's multi-scale hybrid strategy (MHS), and Restormer's."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.models.config import MixDTPConfig, UNetConfig
from mixdtp_jax.models.encoder import Features
from mixdtp_jax.models.layers import Conv1x1, Conv3x3
from mixdtp_jax.models.transformer import TransformerStage
from mixdtp_jax.ops import dense, resizing


class Upsample(nn.Module):
  """A layer to twice the size: (B, H, W, C) to (B, 2H, 2W, C/2)."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Doubles the channels, then moves four channels into 2x2 pixels."""
    return resizing.pixel_shuffle(Conv3x3(x.shape[-1] * 2, name='conv')(x))


class MHS(nn.Module):
  """MixDTPNet's decoder, which predicts an image, not a residual."""

  cfg: MixDTPConfig

  @nn.compact
  def __call__(self, features: Features) -> jax.Array:
    """Decodes features into the coarse restored image (B, H, W, 3)."""
    return decode(self.cfg, features)


def decode(cfg: UNetConfig, features: Features) -> jax.Array:
  """Fuses the encoder's levels, from coarse to fine, into (B, H, W, 3).

  The layers are those of the module that calls it.
  """
  coupling = isinstance(cfg, MixDTPConfig) and cfg.coupling
  x = features.outputs[3]
  for level in (2, 1, 0):
    # One upsampling has two uses: the decoder's way up, and the coupling,
    # which adds the encoder's input of the level below.
    up = Upsample(name=f'up{level + 2}_{level + 1}')
    x = jnp.concatenate([up(x), features.outputs[level]], axis=-1)
    # Restormer's finest level keeps all channels.
    if level or isinstance(cfg, MixDTPConfig):
      x = Conv1x1(cfg.level_width(level), name=f'reduce{level + 1}')(x)
    blocks = cfg.decoder_blocks[level]
    x = TransformerStage(cfg, level, blocks, name=f'stage{level + 1}')(x)
    if coupling:
      x += up(features.inputs[level])
  x = TransformerStage(cfg, 0, cfg.refinement_blocks, name='refinement')(x)
  return Conv3x3(3, name='to_image')(dense.at_least_float32(x))
