"""The convolutions that every box is made of, initialised as PyTorch does.

PyTorch draws a convolution's weights and biases from
U(-1/sqrt(fan_in), 1/sqrt(fan_in)); the published recipes were tuned to that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.ops import dense

kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def to_compute(x: jax.Array, dtype: str) -> jax.Array:
  """What the convolutions are to compute in: bfloat16, or `x` as it is.

  They compute in the dtype of their input.
  """
  return x.astype(jnp.bfloat16) if dtype == 'bfloat16' else x


def _bias_init(inputs):
  bound = (9 * inputs) ** -0.5

  def init(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Kernel(nn.Module):
  """The kernel alone of a convolution, for modules that apply it themselves."""

  shape: tuple[int, ...]

  @nn.compact
  def __call__(self) -> jax.Array:
    """Returns the float32 kernel of `shape`, inputs and outputs last."""
    return self.param('kernel', kernel_init, self.shape, jnp.float32)


class Conv3x3(nn.Module):
  """A 3x3 convolution: (B, H, W, C) to (B, H, W, features).

  Stride 1, zero padding 1.
  """

  features: int
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies `ops.conv3x3` with this module's kernel, and adds its bias."""
    inputs = x.shape[-1]
    shape = (3, 3, inputs, self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    x = dense.conv3x3(x, kernel)
    if self.use_bias:
      shape = (self.features,)
      bias = self.param('bias', _bias_init(inputs), shape, jnp.float32)
      x += bias.astype(x.dtype)
    return x


class Conv1x1(nn.Module):
  """A 1x1 convolution without bias, (B, H, W, C) to (B, H, W, features)."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies `ops.conv1x1` with this module's kernel."""
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    return dense.conv1x1(x, kernel)


class LayerNorm(nn.Module):
  """Layer norm over the channels of each pixel, (B, H, W, C) to the same."""

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies `ops.layer_norm` with this module's scale and bias."""
    return dense.layer_norm(x, *self.weights(x.shape[-1]))

  @nn.compact
  def weights(self, channels: int) -> tuple[jax.Array, jax.Array]:
    """Returns scale and bias, each (channels,) in float32."""
    shape = (channels,)
    scale = self.param('scale', nn.initializers.ones, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    return scale, bias
