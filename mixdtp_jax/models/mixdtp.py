"""MixDTPNet.

"Progressive Network based on Detail Scaling and Texture Extraction: A More
General Framework for Image Deraining", Neurocomputing 568 (2024) 127066.
"""

from typing import NamedTuple

import flax.linen as nn
import jax

from mixdtp_jax.models.config import MixDTPConfig
from mixdtp_jax.models.decoder import MHS
from mixdtp_jax.models.detail_dilation import DetailDilation
from mixdtp_jax.models.encoder import MFE
from mixdtp_jax.models.layers import Conv3x3, to_compute
from mixdtp_jax.models.refinement import ProgressiveRefinement


class Outputs(NamedTuple):
  """Restored images (B, H, W, 3), about [0, 1], not clamped."""

  final: jax.Array
  # The decoder's result, from which the refinement starts; without refinement
  # the same array as `final`.
  coarse: jax.Array


def check_images(images: jax.Array, multiple: int) -> None:
  """Raises ValueError unless images are (B, H, W, 3), H and W multiples."""
  if images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(f'images of shape {images.shape}: needs (B, H, W, 3)')
  if images.shape[1] % multiple or images.shape[2] % multiple:
    raise ValueError(
      f'images of {images.shape[1]}x{images.shape[2]} pixels: needs multiples '
      f'of {multiple}; restoration.whole_image pads and crops other sizes'
    )


class MixDTP(nn.Module):
  """The network: float32 images (B, H, W, 3) in [0, 1] to restored ones."""

  cfg: MixDTPConfig

  @nn.compact
  def __call__(self, rainy: jax.Array) -> Outputs:
    """Restores rainy images (B, H, W, 3), whose sides are multiples of 8."""
    cfg = self.cfg
    check_images(rainy, cfg.multiple)
    if cfg.detail_dilation:
      x = DetailDilation(cfg, name='detail_dilation')(rainy)
    else:
      x = Conv3x3(cfg.width, name='embed')(rainy)
    # Images are embedded and predicted in float32: bfloat16 has too few levels.
    x = to_compute(x, cfg.dtype)
    coarse = MHS(cfg, name='mhs')(MFE(cfg, name='mfe')(x))
    if not cfg.steps:
      return Outputs(coarse, coarse)
    refine = ProgressiveRefinement(cfg, name='progressive')
    return Outputs(refine(rainy, coarse), coarse)
