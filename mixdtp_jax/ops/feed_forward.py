"""The gated feed-forward of a transformer block, with a form per platform.

It is Restormer's (arXiv:2111.09881): a 1x1 convolution widens the image, a
depthwise one follows, one half of the channels gates the other, and a 1x1
convolution narrows the result.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from mixdtp_jax.ops import choice
from mixdtp_jax.ops.cpu import native
from mixdtp_jax.ops.dense import (
  at_least_float32,
  conv1x1,
  conv1x1_kernel_gradient,
  keep_inputs,
)
from mixdtp_jax.ops.depthwise import (
  as_rounded,
  depthwise_conv3x3,
  depthwise_conv3x3_gradients,
  shifted_convolution,
  shifted_gradients,
  shifted_sum,
)


@jax.custom_vjp
def gated_gelu(x: jax.Array) -> jax.Array:
  """Computes gelu(a) * b for halves a, b of channels: (..., 2C) to (..., C).

  gelu is the exact one, a times the normal distribution function of a, computed
  in float32. XLA on a CPU recomputes the origin of `x` for each part of the
  gradient, of which the automatic one has more.
  """
  a, b = jnp.split(at_least_float32(x), 2, axis=-1)
  return (a * normal_cdf(a) * b).astype(x.dtype)


def normal_cdf(x: jax.Array) -> jax.Array:
  """Computes the normal distribution function, elementwise."""
  return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


def gate_with_gradients(
  a: jax.Array, b: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Computes gelu(a) * b and its gradients for `a` and `b`, for gradient `g`.

  All arrays have one shape.
  """
  cdf = normal_cdf(a)
  density = jnp.exp(-0.5 * a * a) * (1 / math.sqrt(2 * math.pi))
  return a * cdf * b, g * b * (cdf + a * density), g * a * cdf


def _gated_gelu_bwd(residuals, g):
  (x,) = residuals
  a, b = jnp.split(at_least_float32(x), 2, axis=-1)
  _, grad_a, grad_b = gate_with_gradients(a, b, g)
  return (jnp.concatenate([grad_a, grad_b], axis=-1).astype(x.dtype),)


gated_gelu.defvjp(keep_inputs(gated_gelu), _gated_gelu_bwd)


def feed_forward(
  x: jax.Array, widen: jax.Array, depthwise: jax.Array, narrow: jax.Array
) -> jax.Array:
  """Computes the gated feed-forward: 1x1, depthwise 3x3, `gated_gelu`, 1x1.

  The widened image is by far the network's largest array. On a CPU, where it
  would pass through memory several times, it is made and consumed in strips
  of rows, unless a gradient needs it.

  Images are (B, H, W, C), the kernels `widen` (C, 2D), `depthwise` (3, 3, 1,
  2D) and `narrow` (D, C).
  """
  form = _native_form if choice.usable(x.dtype) else _xla_form
  return form(x, widen, depthwise, narrow)


def feed_forward_inside(
  x: jax.Array, widen: jax.Array, depthwise: jax.Array, narrow: jax.Array
) -> jax.Array:
  """Computes `feed_forward` unpadded: (B, H, W, C) to (B, H - 2, W - 2, C).

  It has no gradient: only restoration/ uses it.
  """
  wide = conv1x1(x, widen)
  if choice.usable(x.dtype):
    gate = native.depthwise_gate(wide, depthwise, inside=True)
  else:
    gate = gated_gelu(shifted_sum(wide, depthwise))
  return conv1x1(gate, narrow)


@jax.custom_vjp
def _xla_form(x, widen, depthwise, narrow):
  return lax.platform_dependent(
    x, widen, depthwise, narrow, cpu=_in_strips, default=_at_once
  )


def _xla_form_fwd(x, widen, depthwise, narrow):
  wide = conv1x1(x, widen)
  between = depthwise_conv3x3(wide, depthwise)
  gate = gated_gelu(between)
  # The compiler drops the arrays that the platform's gradient does not use.
  kept = x, widen, wide, depthwise, between, gate, narrow
  return conv1x1(gate, narrow), kept


def _xla_form_bwd(residuals, g):
  x, widen, wide, depthwise, between, gate, narrow = residuals
  of_gate = lax.platform_dependent(
    wide,
    depthwise,
    between,
    gate,
    conv1x1(g, narrow.T),
    cuda=_gate_gradients_on_gpu,
    rocm=_gate_gradients_on_gpu,
    default=_gate_gradients,
  )
  return _through_products(x, widen, narrow, g, of_gate)


_xla_form.defvjp(_xla_form_fwd, _xla_form_bwd)


@jax.custom_vjp
def _native_form(x, widen, depthwise, narrow):
  return _in_strips(x, widen, depthwise, narrow)


def _native_form_fwd(x, widen, depthwise, narrow):
  wide = conv1x1(x, widen)
  out = conv1x1(_gate(wide, depthwise), narrow)
  # The arrays between the two are recomputed, which costs little here.
  return out, (x, widen, wide, depthwise, narrow)


def _native_form_bwd(residuals, g):
  x, widen, wide, depthwise, narrow = residuals
  of_gate = native.depthwise_gate_gradients(
    wide, depthwise, conv1x1(g, narrow.T)
  )
  return _through_products(x, widen, narrow, g, of_gate)


_native_form.defvjp(_native_form_fwd, _native_form_bwd)


def _through_products(x, widen, narrow, g, of_gate):
  """Propagates the gate's gradients through the two 1x1 convolutions."""
  grad_wide, grad_depthwise, gate = of_gate
  return (
    conv1x1(grad_wide, widen.T),
    conv1x1_kernel_gradient(x, widen, grad_wide),
    grad_depthwise,
    conv1x1_kernel_gradient(gate, narrow, g),
  )


def _gate_gradients(wide, depthwise, between, gate, g):
  """Computes the gradients of `_gate`; returns its result as well."""
  (grad_between,) = _gated_gelu_bwd((between,), g)
  return *depthwise_conv3x3_gradients(wide, depthwise, grad_between), gate


def _gate_gradients_on_gpu(wide, depthwise, between, gate, g):
  """Computes `_gate_gradients` from the wide image alone.

  Recomputing the later arrays costs less than writing and reading them: it is
  one kernel, because its three results have one shape once the halves of the
  channels are separate. A second kernel does the rest, a third the sums.
  """
  del between, gate
  halves = jnp.split(wide, 2, axis=-1)
  kernels = jnp.split(depthwise, 2, axis=-1)
  a, b = map(shifted_convolution, map(at_least_float32, halves), kernels)
  parts = (part.astype(wide.dtype) for part in gate_with_gradients(a, b, g))
  gate, *grad_halves = as_rounded(tuple(parts))
  gradients = map(shifted_gradients, halves, kernels, grad_halves)
  grad_wide, grad_depthwise = (
    jnp.concatenate(parts, axis=-1) for parts in zip(*gradients, strict=True)
  )
  return grad_wide, grad_depthwise, gate


def _at_once(x, widen, depthwise, narrow):
  return conv1x1(_gate(conv1x1(x, widen), depthwise), narrow)


def _gate(wide, depthwise):
  if choice.usable(wide.dtype):
    return native.depthwise_gate(wide, depthwise)
  return gated_gelu(depthwise_conv3x3(wide, depthwise))


# Bytes of a strip of a widened image. 4 and 16 MiB were nearly as fast on cores
# that share 32 MiB of cache; strips do not help images of at most that size.
_STRIP = 8 * 2**20
_CACHE = 4 * _STRIP


def _in_strips(x, widen, depthwise, narrow):
  """Computes `_at_once` in strips of rows."""
  b, h, w, c = x.shape
  row = b * w * widen.shape[1] * x.dtype.itemsize
  # jax.export makes a program of any size, which has no number of strips.
  if not isinstance(h * row, int) or h * row <= _CACHE:
    return _at_once(x, widen, depthwise, narrow)
  # The rows above and below a strip are widened twice: too much for few rows.
  strips = math.ceil(h / max(_STRIP // row, 8))
  if strips == 1:
    return _at_once(x, widen, depthwise, narrow)
  rows = math.ceil(h / strips)
  # Zeros are widened to zeros, which is the depthwise convolution's padding.
  padded = jnp.pad(x, ((0, 0), (1, strips * rows - h + 1), (1, 1), (0, 0)))

  def strip(first):
    part = lax.dynamic_slice_in_dim(padded, first, rows + 2, axis=1)
    return feed_forward_inside(part, widen, depthwise, narrow)

  out = lax.map(strip, rows * jnp.arange(strips))
  return jnp.moveaxis(out, 0, 1).reshape(b, strips * rows, w, c)[:, :h]
