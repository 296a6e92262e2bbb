"""Detail dilation, the figure's "Detail Zoom Block"."""

import flax.linen as nn
import jax

from mixdtp_jax.models.config import MixDTPConfig
from mixdtp_jax.models.layers import Conv3x3
from mixdtp_jax.ops import resizing


class DetailDilation(nn.Module):
  """Embeds an image with its magnified fine detail taken away.

  The detail is what a half-size feature image loses when it is halved again:
  thin structures, rain streaks among them.
  """

  cfg: MixDTPConfig

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """Embeds (B, H, W, 3) into (B, H, W, width)."""
    zoomed = nn.relu(Conv3x3(3, name='zoom')(image))
    half = resizing.bilinear_half(zoomed)
    detail = half - resizing.bilinear_double(resizing.bilinear_half(half))
    # The original embeds the image and the detail with the same bias-free
    # convolution and subtracts: by linearity one convolution does.
    return Conv3x3(self.cfg.width, name='embed')(
      image - resizing.bilinear_double(detail)
    )
