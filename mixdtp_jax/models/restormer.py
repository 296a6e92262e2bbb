"""Restormer, built from the parts of MixDTPNet.

"Restormer: Efficient Transformer for High-Resolution Image Restoration",
arXiv:2111.09881.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.models.config import RestormerConfig
from mixdtp_jax.models.decoder import Upsample
from mixdtp_jax.models.encoder import MFE
from mixdtp_jax.models.layers import Conv1x1, Conv3x3, to_compute
from mixdtp_jax.models.mixdtp import Outputs, check_images
from mixdtp_jax.models.transformer import TransformerStage
from mixdtp_jax.ops import dense


class Restormer(nn.Module):
  """MixDTPNet's encoder, a plain U-Net decoder, and an input residual."""

  multiple: ClassVar[int] = 8

  cfg: RestormerConfig

  @nn.compact
  def __call__(self, rainy: jax.Array) -> Outputs:
    """Restores rainy images (B, H, W, 3); final and coarse are one image.

    Raises:
      ValueError: the shape differs, or a side is not a multiple of 8.
    """
    check_images(rainy, self.multiple)
    cfg = self.cfg
    embedded = to_compute(Conv3x3(cfg.width, name='embed')(rainy), cfg.dtype)
    features = MFE(cfg, name='mfe')(embedded)
    x = features.outputs[3]
    for level in (2, 1, 0):
      x = Upsample(name=f'up{level + 2}_{level + 1}')(x)
      x = jnp.concatenate([x, features.outputs[level]], axis=-1)
      if level:  # the finest level keeps all channels
        x = Conv1x1(cfg.level_width(level), name=f'reduce{level + 1}')(x)
      blocks = cfg.decoder_blocks[level]
      x = TransformerStage(cfg, level, blocks, name=f'stage{level + 1}')(x)
    x = TransformerStage(cfg, 0, cfg.refinement_blocks, name='refinement')(x)
    image = Conv3x3(3, name='to_image')(dense.at_least_float32(x)) + rainy
    return Outputs(image, image)
