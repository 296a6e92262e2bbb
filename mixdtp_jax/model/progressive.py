"""Progressive refinement (figure A, right), PReNet's recurrent network.

PReNet: arXiv:1901.09221. All its convolutions have biases.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.model.config import ModelConfig
from mixdtp_jax.model.layers import conv3x3_bias

RESIDUAL_BLOCKS = 5


class RefinementStep(nn.Module):
  """One step: a convolutional LSTM and five residual blocks."""

  cfg: ModelConfig

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
    x = jnp.concatenate([rainy, image], axis=-1)
    x = nn.relu(conv3x3_bias(r, 6, name='conv_in')(x))
    # One convolution for the four gates, in the order i, f, g, o.
    gates = conv3x3_bias(4 * r, 2 * r, name='gates')(
      jnp.concatenate([x, h], axis=-1)
    )
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
    h = nn.sigmoid(o) * nn.tanh(c)
    x = h
    for block in range(1, RESIDUAL_BLOCKS + 1):
      y = nn.relu(conv3x3_bias(r, r, name=f'residual{block}_1')(x))
      y = nn.relu(conv3x3_bias(r, r, name=f'residual{block}_2')(y))
      x = nn.relu(y + x)
    return conv3x3_bias(3, r, name='conv_out')(x) + rainy, (c, h)


class ProgressiveRefinement(nn.Module):
  """Refines an image in `cfg.steps` steps that share their weights."""

  cfg: ModelConfig

  @nn.compact
  def __call__(self, rainy: jax.Array, image: jax.Array) -> jax.Array:
    """Refines `image` in sight of `rainy`; both and the result (B, H, W, 3)."""
    step = RefinementStep(self.cfg, name='step')
    zeros = jnp.zeros(
      (*image.shape[:-1], self.cfg.recurrent_width), image.dtype
    )
    state = (zeros, zeros)
    for _ in range(self.cfg.steps):
      image, state = step(rainy, image, state)
    return image
