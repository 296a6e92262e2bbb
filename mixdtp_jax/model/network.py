"""MixDTPNet, put together from its boxes.

"Progressive Network based on Detail Scaling and Texture Extraction: A More
General Framework for Image Deraining", Neurocomputing 568 (2024) 127066.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.model.config import ModelConfig
from mixdtp_jax.model.detail_dilation import DetailDilation
from mixdtp_jax.model.layers import conv3x3
from mixdtp_jax.model.mfe import MFE
from mixdtp_jax.model.mhs import MHS
from mixdtp_jax.model.progressive import ProgressiveRefinement

MULTIPLE = 8  # height and width of an input are multiples of this


class Outputs(NamedTuple):
  """Restored images (B, H, W, 3), about [0, 1], not clamped.

  Attributes:
    final: the network's answer.
    coarse: the decoder's answer, which the refinement started from; the same
      array as `final` where the refinement is off.
  """

  final: jax.Array
  coarse: jax.Array


class MixDTP(nn.Module):
  """The network: NHWC images in [0, 1], float32, to restored images."""

  cfg: ModelConfig

  @nn.compact
  def __call__(self, rainy: jax.Array) -> Outputs:
    """Restores rainy images (B, H, W, 3).

    Raises:
      ValueError: the shape is another one, or a side is no multiple of 8.
    """
    if rainy.ndim != 4 or rainy.shape[-1] != 3:
      raise ValueError(f'images of shape {rainy.shape}: needs (B, H, W, 3)')
    if rainy.shape[1] % MULTIPLE or rainy.shape[2] % MULTIPLE:
      raise ValueError(
        f'images of {rainy.shape[1]}x{rainy.shape[2]} pixels: needs multiples '
        f'of {MULTIPLE}; mixdtp_jax.inference pads and crops other sizes'
      )
    cfg = self.cfg
    if cfg.detail_dilation:
      x = DetailDilation(cfg, name='detail_dilation')(rainy)
    else:
      x = conv3x3(cfg.width, name='embed')(rainy)
    coarse = MHS(cfg, name='mhs')(MFE(cfg, name='mfe')(x))
    if not cfg.steps:
      return Outputs(coarse, coarse)
    refine = ProgressiveRefinement(cfg, name='progressive')
    return Outputs(refine(rainy, coarse), coarse)


@functools.cache
def final_image(cfg: ModelConfig) -> Callable[[dict, jax.Array], jax.Array]:
  """(parameters, rainy images) -> final images, of `MixDTP(cfg)`.

  The same function for the same configuration, so that what JAX compiled for
  it is found again.
  """
  network = MixDTP(cfg)
  return lambda params, rainy: network.apply({'params': params}, rainy).final


@functools.cache
def abstract_params(cfg: ModelConfig) -> dict:
  """Shapes and dtypes of a network's parameters, with nothing computed.

  The same tree at every call: not to be changed.
  """
  image = jax.ShapeDtypeStruct((1, MULTIPLE, MULTIPLE, 3), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(MixDTP(cfg).init, key, image)['params']
