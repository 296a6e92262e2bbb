"""Depthwise 3x3 convolutions, and the gated feed-forward around one.

Each in the form that is fast where it runs: XLA's own on GPUs and TPUs, native
code on a CPU (see native.py), and without that, shifted sums, since XLA's
depthwise convolution is many times slower there. Arrays and dtypes are as in
ops.py.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from mixdtp_jax.model import native
from mixdtp_jax.model.ops import (
  at_least_float32,
  conv1x1,
  conv1x1_kernel_gradient,
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
    x, kernel, cpu=_convolution_on_cpu, default=_xla_convolution
  )


def _depthwise_fwd(x, kernel):
  return depthwise_conv3x3(x, kernel), (x, kernel)


def _depthwise_bwd(residuals, g):
  return lax.platform_dependent(
    *residuals, g, cpu=_gradients_on_cpu, default=_xla_gradients
  )


depthwise_conv3x3.defvjp(_depthwise_fwd, _depthwise_bwd)


def _xla_convolution(x, kernel):
  return grouped_conv3x3(x, kernel, groups=x.shape[-1])


def _xla_gradients(x, kernel, g):
  grad_x = _xla_convolution(g, kernel[::-1, ::-1])
  return grad_x, grouped_conv3x3_kernel_gradient(x, kernel, g, x.shape[-1])


def _convolution_on_cpu(x, kernel):
  if native.usable(x.dtype):
    return native.depthwise(x, kernel)
  return _shifted_sum(_pad(x), kernel)


def _gradients_on_cpu(x, kernel, g):
  if native.usable(x.dtype):
    return native.depthwise_gradients(x, kernel, g)
  grad_x = _shifted_sum(_pad(g), kernel[::-1, ::-1])
  return grad_x, _shifted_kernel_gradient(x, g).astype(kernel.dtype)


def _shifted_sum(padded, kernel):
  """The depthwise convolution of an image with a pixel more on each side."""
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

  XLA on a CPU sums over leading axes slowly, but multiplies elementwise and
  does matrix products well. So up to 4x4 blocks of the image are added onto
  one another elementwise, in one fused loop that writes 1/16 of a product,
  and a row of ones times that does the rest: 10 times faster than nine plain
  sums for 96x96 pixels of 340 channels.
  """
  b, h, w, c = x.shape
  rows, columns = h // math.gcd(h, 4), w // math.gcd(w, 4)
  padded, g = _pad(at_least_float32(x)), at_least_float32(g)
  ones = jnp.ones((1, b * rows * columns), g.dtype)

  def tap(i, j):
    folded = sum(
      padded[:, i + r : i + r + rows, j + s : j + s + columns]
      * g[:, r : r + rows, s : s + columns]
      for r in range(0, h, rows)
      for s in range(0, w, columns)
    )
    return ones @ folded.reshape(-1, c)

  return jnp.stack([jnp.stack([tap(i, j) for j in range(3)]) for i in range(3)])


@jax.custom_vjp
def gated_gelu(x: jax.Array) -> jax.Array:
  """gelu(a) * b of the halves a, b of the channels: (..., 2C) to (..., C).

  The exact gelu, a times the normal distribution function of a, in float32:
  elementwise, it costs no more there than in bfloat16. Written with
  its gradient: XLA on a CPU computes anew what made `x` in each of the
  gradient's parts, and here these are fewer than in the automatic one.
  """
  a, b = jnp.split(at_least_float32(x), 2, axis=-1)
  return (a * normal_cdf(a) * b).astype(x.dtype)


def normal_cdf(x: jax.Array) -> jax.Array:
  """The normal distribution function, of each number."""
  return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


def _gated_gelu_fwd(x):
  return gated_gelu(x), x


def _gated_gelu_bwd(x, g):
  a, b = jnp.split(at_least_float32(x), 2, axis=-1)
  cdf = normal_cdf(a)
  density = jnp.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
  grad_a, grad_b = g * b * (cdf + a * density), g * a * cdf
  return (jnp.concatenate([grad_a, grad_b], axis=-1).astype(x.dtype),)


gated_gelu.defvjp(_gated_gelu_fwd, _gated_gelu_bwd)


def feed_forward(
  x: jax.Array, widen: jax.Array, depthwise: jax.Array, narrow: jax.Array
) -> jax.Array:
  """The gated feed-forward: 1x1, depthwise 3x3, `gated_gelu`, 1x1.

  The widened image is the network's largest array by far. On a CPU, where it
  would pass through memory several times, and where nothing is kept for a
  gradient, it is made and used up in strips of rows.

  Args:
    x: (B, H, W, C).
    widen: (C, 2D), the 1x1 kernel before.
    depthwise: (3, 3, 1, 2D).
    narrow: (D, C), the 1x1 kernel after.

  Returns:
    (B, H, W, C).
  """
  form = _native_form if native.usable(x.dtype) else _xla_form
  return form(x, widen, depthwise, narrow)


@jax.custom_vjp
def _xla_form(x, widen, depthwise, narrow):
  return lax.platform_dependent(
    x, widen, depthwise, narrow, cpu=_in_strips, default=_at_once
  )


def _xla_form_fwd(*arguments):
  return jax.vjp(_at_once, *arguments)


def _xla_form_bwd(gradient, g):
  return gradient(g)


_xla_form.defvjp(_xla_form_fwd, _xla_form_bwd)


@jax.custom_vjp
def _native_form(x, widen, depthwise, narrow):
  return _in_strips(x, widen, depthwise, narrow)


def _native_form_fwd(x, widen, depthwise, narrow):
  wide = conv1x1(x, widen)
  out = conv1x1(_gate(wide, depthwise), narrow)
  # What comes between the two is computed anew, which costs little here.
  return out, (x, widen, wide, depthwise, narrow)


def _native_form_bwd(residuals, g):
  x, widen, wide, depthwise, narrow = residuals
  grad_wide, grad_depthwise, gate = native.depthwise_gate_gradients(
    wide, depthwise, conv1x1(g, narrow.T)
  )
  return (
    conv1x1(grad_wide, widen.T),
    conv1x1_kernel_gradient(x, widen, grad_wide),
    grad_depthwise,
    conv1x1_kernel_gradient(gate, narrow, g),
  )


_native_form.defvjp(_native_form_fwd, _native_form_bwd)


def _at_once(x, widen, depthwise, narrow):
  return conv1x1(_gate(conv1x1(x, widen), depthwise), narrow)


def _gate(wide, depthwise):
  if native.usable(wide.dtype):
    return native.depthwise_gate(wide, depthwise)
  return gated_gelu(depthwise_conv3x3(wide, depthwise))


def _gate_inside(wide, depthwise):
  """The gate of all pixels but those at the border."""
  if native.usable(wide.dtype):
    return native.depthwise_gate(wide, depthwise, inside=True)
  return gated_gelu(_shifted_sum(wide, depthwise))


# Bytes of a strip of a widened image. 4 and 16 MiB did nearly as well on cores
# that share 32 MiB of cache; an image of no more than that gains nothing.
_STRIP = 8 * 2**20
_CACHE = 4 * _STRIP


def _in_strips(x, widen, depthwise, narrow):
  """`_at_once`, some rows after the others."""
  b, h, w, c = x.shape
  row = b * w * widen.shape[1] * x.dtype.itemsize
  # A row above and one below are widened twice: of few rows that is a loss.
  strips = -(-h // max(_STRIP // row, 8))
  if h * row <= _CACHE or strips == 1:
    return _at_once(x, widen, depthwise, narrow)
  rows = -(-h // strips)
  # Rows of zeros are widened to zeros, the depthwise convolution's padding.
  padded = jnp.pad(x, ((0, 0), (1, strips * rows - h + 1), (1, 1), (0, 0)))

  def strip(first):
    part = lax.dynamic_slice_in_dim(padded, first, rows + 2, axis=1)
    return conv1x1(_gate_inside(conv1x1(part, widen), depthwise), narrow)

  out = lax.map(strip, rows * jnp.arange(strips))
  return jnp.moveaxis(out, 0, 1).reshape(b, strips * rows, w, c)[:, :h]
