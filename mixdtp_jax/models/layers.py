"""Convolutions and layer norm, the layers that all networks are made of.

They are initialised as in PyTorch, which the published recipes were tuned to:
weights and biases are drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.ops import dense

kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def to_compute(x: jax.Array, dtype: str) -> jax.Array:
  """Casts `x` to bfloat16 if that is `dtype`; else returns it unchanged.

  Convolutions compute in the dtype of their input.
  """
  return x.astype(jnp.bfloat16) if dtype == 'bfloat16' else x


def _bias_init(inputs):
  bound = (9 * inputs) ** -0.5

  def init(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Kernel(nn.Module):
  """A convolution's kernel, for modules that apply it themselves."""

  shape: tuple[int, ...]

  @nn.compact
  def __call__(self) -> jax.Array:
    """Returns the float32 kernel; `shape` ends with inputs and outputs."""
    return self.param('kernel', kernel_init, self.shape, jnp.float32)


class Conv3x3(nn.Module):
  """A 3x3 convolution, padded by 1: (B, H, W, C) to (B, H, W, features)."""

  features: int
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies `dense.conv3x3` with this module's kernel, and adds its bias."""
    inputs = x.shape[-1]
    shape = (3, 3, inputs, self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    x = dense.conv3x3(x, kernel)
    if self.use_bias:
      bias = self.param(
        'bias', _bias_init(inputs), (self.features,), jnp.float32
      )
      x += bias.astype(x.dtype)
    return x


class Conv1x1(nn.Module):
  """A 1x1 convolution without bias, (B, H, W, C) to (B, H, W, features)."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies `dense.conv1x1` with this module's kernel."""
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init, shape, jnp.float32)
    return dense.conv1x1(x, kernel)


class LayerNorm(nn.Module):
  """Layer norm over the channels of each pixel, (B, H, W, C) to the same."""

  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies `dense.layer_norm` with this module's scale and bias."""
    return dense.layer_norm(x, *self.weights(x.shape[-1]))

  @nn.compact
  def weights(self, channels: int) -> tuple[jax.Array, jax.Array]:
    """Returns scale and bias, each (channels,) in float32."""
    shape = (channels,)
    scale = self.param('scale', nn.initializers.ones, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    return scale, bias
