"""Depthwise 3x3 convolutions, in the form that is fast where they run.

That is XLA's own convolution on TPUs, native code on a CPU (see native.py), and
shifted sums on a GPU, and on a CPU where there is no native code. XLA fuses
those with what surrounds them. Its depthwise convolution is many times slower
on a CPU; on a GPU it is a library's, which is fused with nothing, and whose
kernel gradient wants copies in float32. Arrays and dtypes are as in ops.py.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from mixdtp_jax.ops import choice
from mixdtp_jax.ops.cpu import native
from mixdtp_jax.ops.dense import (
  at_least_float32,
  grouped_conv3x3,
  grouped_conv3x3_kernel_gradient,
)


@jax.custom_vjp
def depthwise_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Depthwise 3x3 cross-correlation, stride 1, zero padding 1.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, 1, C), the layout of `flax.linen.Conv`.

  Returns:
    (B, H, W, C).
  """
  return lax.platform_dependent(
    x,
    kernel,
    cpu=_on_cpu,
    cuda=shifted_convolution,
    rocm=shifted_convolution,
    default=_xla_convolution,
  )


def depthwise_inside(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`depthwise_conv3x3` without padding: (B, H, W, C) to (B, H - 2, W - 2, C).

  It has no gradient of its own: the engine of restoration/ is its only user.
  """

  def on_cpu(x, kernel):
    if choice.usable(x.dtype):
      return native.depthwise(x, kernel, inside=True)
    return shifted_sum(x, kernel)

  def by_xla(x, kernel):
    return grouped_conv3x3(x, kernel, groups=x.shape[-1], inside=True)

  return lax.platform_dependent(
    x, kernel, cpu=on_cpu, cuda=shifted_sum, rocm=shifted_sum, default=by_xla
  )


def _depthwise_fwd(x, kernel):
  return depthwise_conv3x3(x, kernel), (x, kernel)


def _depthwise_bwd(residuals, g):
  return depthwise_conv3x3_gradients(*residuals, g)


depthwise_conv3x3.defvjp(_depthwise_fwd, _depthwise_bwd)


def depthwise_conv3x3_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Gradients of `depthwise_conv3x3`: like `x`, and like `kernel`."""
  return lax.platform_dependent(
    x,
    kernel,
    g,
    cpu=_gradients_on_cpu,
    cuda=shifted_gradients,
    rocm=shifted_gradients,
    default=_xla_gradients,
  )


def _xla_convolution(x, kernel):
  return grouped_conv3x3(x, kernel, groups=x.shape[-1])


def _xla_gradients(x, kernel, g):
  grad_x = _xla_convolution(g, kernel[::-1, ::-1])
  return grad_x, grouped_conv3x3_kernel_gradient(x, kernel, g, x.shape[-1])


def _on_cpu(x, kernel):
  if choice.usable(x.dtype):
    return native.depthwise(x, kernel)
  return shifted_convolution(x, kernel)


def _gradients_on_cpu(x, kernel, g):
  if choice.usable(x.dtype):
    return native.depthwise_gradients(x, kernel, g)
  return shifted_gradients(x, kernel, g)


def as_rounded(arrays):
  """The same arrays, written to memory in their dtype.

  Where what follows computes in float32, XLA would leave the rounding out and
  write, and read several times, twice the bytes.
  """
  return lax.optimization_barrier(arrays)


def rounded_on_gpu(x: jax.Array) -> jax.Array:
  """The same, `as_rounded` on a GPU: for what is read more than once."""
  return lax.platform_dependent(
    x, cuda=as_rounded, rocm=as_rounded, default=lambda x: x
  )


def shifted_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`depthwise_conv3x3` as a sum of nine products."""
  return shifted_sum(_pad(x), kernel)


def shifted_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Gradients of `shifted_convolution`."""
  grad_x = shifted_convolution(g, kernel[::-1, ::-1])
  return grad_x, _shifted_kernel_gradient(x, g).astype(kernel.dtype)


def shifted_sum(padded: jax.Array, kernel: jax.Array) -> jax.Array:
  """`shifted_convolution` of what has a pixel more on each side."""
  h, w = padded.shape[1] - 2, padded.shape[2] - 2
  wide = at_least_float32(padded)
  total = sum(
    wide[:, i : i + h, j : j + w] * kernel[i, j, 0]
    for i in range(3)
    for j in range(3)
  )
  return total.astype(padded.dtype)


def _pad(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _shifted_kernel_gradient(x, g):
  """Sum over pixels of the shifted input times `g`: (3, 3, 1, C).

  Up to 4x4 blocks of the image are added onto one another elementwise, in one
  fused loop that writes 1/16 of a product for each of the nine, and a row of
  ones times that does the rest. XLA on a CPU sums over leading axes slowly, but
  multiplies elementwise and does matrix products well: 10 times faster than
  nine plain sums for 96x96 pixels of 340 channels. On a GPU the two are a
  kernel each.
  """
  b, h, w, c = x.shape
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
