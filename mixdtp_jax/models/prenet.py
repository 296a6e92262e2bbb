"""PReNet: the recurrent refinement without the networks before it.

"Progressive Image Deraining Networks: A Better and Simpler Baseline",
arXiv:1901.09221.
"""

import flax.linen as nn
import jax

from mixdtp_jax.models.config import PReNetConfig
from mixdtp_jax.models.mixdtp import Outputs, check_images
from mixdtp_jax.models.refinement import ProgressiveRefinement


class PReNet(nn.Module):
  """The progressive refinement, started from the rainy image."""

  cfg: PReNetConfig

  @nn.compact
  def __call__(self, rainy: jax.Array) -> Outputs:
    """Restores rainy images (B, H, W, 3); final and coarse are one image."""
    check_images(rainy, self.cfg.multiple)
    image = ProgressiveRefinement(self.cfg, name='progressive')(rainy, rainy)
    return Outputs(image, image)
