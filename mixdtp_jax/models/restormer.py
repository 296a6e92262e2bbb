"""Restormer, built from the parts of MixDTPNet.

"Restormer: Efficient Transformer for High-Resolution Image Restoration",
arXiv:2111.09881.
"""

import flax.linen as nn
import jax

from mixdtp_jax.models.config import RestormerConfig
from mixdtp_jax.models.decoder import decode
from mixdtp_jax.models.encoder import MFE
from mixdtp_jax.models.layers import Conv3x3, to_compute
from mixdtp_jax.models.mixdtp import Outputs, check_images


class Restormer(nn.Module):
  """MixDTPNet's encoder, a plain U-Net decoder, and an input residual."""

  cfg: RestormerConfig

  @nn.compact
  def __call__(self, rainy: jax.Array) -> Outputs:
    """Restores rainy images (B, H, W, 3); final and coarse are one image."""
    cfg = self.cfg
    check_images(rainy, cfg.multiple)
    embedded = to_compute(Conv3x3(cfg.width, name='embed')(rainy), cfg.dtype)
    image = decode(cfg, MFE(cfg, name='mfe')(embedded)) + rainy
    return Outputs(image, image)
