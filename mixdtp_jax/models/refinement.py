"""Progressive refinement (figure A, right): PReNet's recurrent network.

PReNet: arXiv:1901.09221. All convolutions here have biases.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.models.config import MixDTPConfig, PReNetConfig
from mixdtp_jax.models.layers import Conv3x3, to_compute
from mixdtp_jax.models.shapes import RESIDUAL_BLOCKS
from mixdtp_jax.ops import dense


class RefinementStep(nn.Module):
  """One step: a convolutional LSTM and five residual blocks."""

  cfg: MixDTPConfig | PReNetConfig

  @nn.compact
  def __call__(
    self,
    rainy: jax.Array,
    image: jax.Array,
    state: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Maps images (B, H, W, 3) and state (c, h) to the next image and state."""
    r = self.cfg.recurrent_width
    c, h = state
    x = to_compute(jnp.concatenate([rainy, image], axis=-1), self.cfg.dtype)
    x = nn.relu(Conv3x3(r, use_bias=True, name='conv_in')(x))
    # One convolution for the four gates, in the order i, f, g, o.
    gates = Conv3x3(4 * r, use_bias=True, name='gates')(
      jnp.concatenate([x, h], axis=-1)
    )
    i, f, g, o = jnp.split(dense.at_least_float32(gates), 4, axis=-1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
    h = to_compute(nn.sigmoid(o) * nn.tanh(c), self.cfg.dtype)
    x = h
    for block in range(1, RESIDUAL_BLOCKS + 1):
      y = nn.relu(Conv3x3(r, use_bias=True, name=f'residual{block}_1')(x))
      y = nn.relu(Conv3x3(r, use_bias=True, name=f'residual{block}_2')(y))
      x = nn.relu(y + x)
    to_image = Conv3x3(3, use_bias=True, name='conv_out')
    return to_image(dense.at_least_float32(x)) + rainy, (c, h)


class ProgressiveRefinement(nn.Module):
  """A refinement of an image in `cfg.steps` steps that share their weights."""

  cfg: MixDTPConfig | PReNetConfig

  @nn.compact
  def __call__(self, rainy: jax.Array, image: jax.Array) -> jax.Array:
    """Refines `image`, given `rainy`; both and the result: (B, H, W, 3)."""
    kind = RefinementStep
    if self.cfg.remat != 'none':
      kind = nn.remat(kind)
    step = kind(self.cfg, name='step')
    shape = (*image.shape[:-1], self.cfg.recurrent_width)
    c = jnp.zeros(shape, image.dtype)
    state = (c, to_compute(c, self.cfg.dtype))
    for _ in range(self.cfg.steps):
      image, state = step(rainy, image, state)
    return image
