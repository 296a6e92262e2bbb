"""Depthwise 3x3 convolutions, with a fast form for each platform.

    TPU   XLA's own convolution
    CPU   native code (cpu/native.py), or shifted sums without it
    GPU   shifted sums

XLA fuses shifted sums with the operations around them. Its own depthwise
convolution is many times slower on a CPU; on a GPU it is a library call, which
fuses with nothing and whose kernel gradient needs copies in float32.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mixdtp_jax.ops import choice
from mixdtp_jax.ops.cpu import native
from mixdtp_jax.ops.dense import (
  at_least_float32,
  grouped_conv3x3,
  grouped_conv3x3_kernel_gradient,
  keep_inputs,
)


@jax.custom_vjp
def depthwise_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes a depthwise 3x3 cross-correlation, stride 1, zero padding 1.

  Images (B, H, W, C) and a kernel (3, 3, 1, C), the layout of
  `flax.linen.Conv`, give images of the same shape.
  """
  return choice.by_platform(
    native.depthwise, _xla_convolution, x, kernel, off_tpu=shifted_convolution
  )


def depthwise_conv3x3_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Computes the gradients of `depthwise_conv3x3` for `x` and `kernel`."""
  return choice.by_platform(
    native.depthwise_gradients,
    _xla_gradients,
    x,
    kernel,
    g,
    off_tpu=shifted_gradients,
  )


def _depthwise_bwd(residuals, g):
  x, kernel = residuals
  return depthwise_conv3x3_gradients(x, kernel, g)


depthwise_conv3x3.defvjp(keep_inputs(depthwise_conv3x3), _depthwise_bwd)


def _xla_convolution(x, kernel):
  return grouped_conv3x3(x, kernel, groups=x.shape[-1])


def _xla_gradients(x, kernel, g):
  grad_x = _xla_convolution(g, kernel[::-1, ::-1])
  return grad_x, grouped_conv3x3_kernel_gradient(x, kernel, g, x.shape[-1])


def as_rounded(arrays):
  """Returns the arrays, and makes XLA write them to memory in their dtype.

  If the next operations compute in float32, XLA would leave out the rounding,
  and write and read twice the bytes.
  """
  return lax.optimization_barrier(arrays)


def rounded_on_gpu(x: jax.Array) -> jax.Array:
  """Applies `as_rounded` on a GPU: for arrays that are read several times."""
  return lax.platform_dependent(
    x, cuda=as_rounded, rocm=as_rounded, default=lambda x: x
  )


def shifted_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `depthwise_conv3x3` as a sum of nine products."""
  return shifted_sum(_pad(x), kernel)


def shifted_sum(padded: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `shifted_convolution` of an input padded by one pixel."""
  h, w = padded.shape[1] - 2, padded.shape[2] - 2
  wide = at_least_float32(padded)
  total: Any = sum(
    wide[:, i : i + h, j : j + w] * kernel[i, j, 0]
    for i in range(3)
    for j in range(3)
  )
  return total.astype(padded.dtype)


def _pad(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def shifted_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Computes the gradients of `shifted_convolution`."""
  grad_x = shifted_convolution(g, kernel[::-1, ::-1])
  return grad_x, _shifted_kernel_gradient(x, g).astype(kernel.dtype)


def _shifted_kernel_gradient(x, g):
  """Sums the shifted input times `g` over the pixels: (3, 3, 1, C).

  First, up to 4x4 blocks of the image are added elementwise, in one fused loop.
  Then a product with a row of ones sums the rest: XLA on a CPU is slow at sums
  over leading axes.
  """
  b, h, w, c = x.shape
  if not x.size:
    return jnp.zeros((3, 3, 1, c), at_least_float32(x).dtype)
  rows, columns = h // math.gcd(h, 4), w // math.gcd(w, 4)
  padded, g = _pad(at_least_float32(x)), at_least_float32(g)

  def tap(i, j):
    return sum(
      padded[:, i + r : i + r + rows, j + s : j + s + columns]
      * g[:, r : r + rows, s : s + columns]
      for r in range(0, h, rows)
      for s in range(0, w, columns)
    )

  taps = jnp.stack([tap(i, j) for i in range(3) for j in range(3)])
  taps = taps.reshape(9, b * rows * columns, c)
  return (jnp.ones((9, 1, taps.shape[1]), g.dtype) @ taps).reshape(3, 3, 1, c)
