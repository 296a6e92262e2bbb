"""Detail dilation, the "Detail Zoom Block" of the paper's figure."""

import flax.linen as nn
import jax

from mixdtp_jax.models.config import MixDTPConfig
from mixdtp_jax.models.layers import Conv3x3
from mixdtp_jax.ops import resizing


class DetailDilation(nn.Module):
  """An embedding of an image without its magnified fine detail.

  The detail is what a half-size feature image loses when it is halved again:
  thin structures, such as rain streaks.
  """

  cfg: MixDTPConfig

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """Embeds (B, H, W, 3) into (B, H, W, width)."""
    zoomed = nn.relu(Conv3x3(3, name='zoom')(image))
    half = resizing.bilinear_half(zoomed)
    detail = half - resizing.bilinear_double(resizing.bilinear_half(half))
    # The original embeds image and detail with the same bias-free convolution
    # and subtracts. By linearity, one convolution of the difference is enough.
    return Conv3x3(self.cfg.width, name='embed')(
      image - resizing.bilinear_double(detail)
    )
