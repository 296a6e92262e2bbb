"""The convolutions that every box is made of, initialised as PyTorch does.

PyTorch draws a convolution's weights and biases from
U(-1/sqrt(fan_in), 1/sqrt(fan_in)); the published recipes were tuned to that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.model import ops

kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def conv3x3(features: int, *, name: str | None = None) -> nn.Conv:
  """A 3x3 convolution without bias: stride 1, zero padding 1."""
  return nn.Conv(
    features,
    (3, 3),
    padding=1,
    use_bias=False,
    kernel_init=kernel_init,
    name=name,
  )


def conv3x3_bias(
  features: int, inputs: int, *, name: str | None = None
) -> nn.Conv:
  """A 3x3 convolution of `inputs` channels with bias."""
  bound = (9 * inputs) ** -0.5

  def bias_init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return nn.Conv(
    features,
    (3, 3),
    padding=1,
    kernel_init=kernel_init,
    bias_init=bias_init,
    name=name,
  )


class Conv1x1(nn.Module):
  """A 1x1 convolution without bias, (B, H, W, C) to (B, H, W, features)."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies `ops.conv1x1` with this module's kernel."""
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    return ops.conv1x1(x, kernel)


class DepthwiseConv(nn.Module):
  """A depthwise 3x3 convolution without bias, (B, H, W, C) to the same."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies `ops.depthwise_conv3x3` with this module's kernel."""
    shape = (3, 3, 1, x.shape[-1])
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    return ops.depthwise_conv3x3(x, kernel)
