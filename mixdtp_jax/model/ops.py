"""The network's pure functions: resizing, fast convolutions, the gelu gate.

Arrays are NHWC. Nothing here has parameters or state. Results have the dtype of
the images; kernels may be wider (float32 where images are bfloat16), are
rounded at use, and have gradients of their own dtype, summed in it.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax


def at_least_float32(x: jax.Array) -> jax.Array:
  """The array in float32, or as it is where it is wider."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def pixel_unshuffle(x: jax.Array) -> jax.Array:
  """Moves 2x2 pixels into channels: (B, H, W, C) to (B, H/2, W/2, 4C).

  The channel order is PyTorch's, channel * 4 + 2 * row + column, so that
  published weights fit.
  """
  b, h, w, c = x.shape
  x = x.reshape(b, h // 2, 2, w // 2, 2, c)
  return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, 4 * c)


def pixel_shuffle(x: jax.Array) -> jax.Array:
  """The inverse of `pixel_unshuffle`: (B, H, W, 4C) to (B, 2H, 2W, C)."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, c // 4, 2, 2)
  return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, c // 4)


def bilinear_half(x: jax.Array) -> jax.Array:
  """Halves height and width: (B, H, W, C) to (B, H/2, W/2, C).

  Bilinear with half-pixel centres and no antialiasing samples midway between
  four pixels, which is the mean of each 2x2.
  """
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def bilinear_double(x: jax.Array) -> jax.Array:
  """Doubles height and width: (B, H, W, C) to (B, 2H, 2W, C).

  Bilinear with half-pixel centres: weights 0.25 and 0.75, edges clamped.
  """
  return _double_axis(_double_axis(x, 1), 2)


def _double_axis(x: jax.Array, axis: int) -> jax.Array:
  size = x.shape[axis]
  first = lax.slice_in_dim(x, 0, 1, axis=axis)
  last = lax.slice_in_dim(x, size - 1, size, axis=axis)
  inner_left = lax.slice_in_dim(x, 0, size - 1, axis=axis)
  inner_right = lax.slice_in_dim(x, 1, size, axis=axis)
  before = jnp.concatenate([first, inner_left], axis)
  after = jnp.concatenate([inner_right, last], axis)
  pairs = jnp.stack(
    [0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1
  )
  return pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 3x3 cross-correlation, stride 1, zero padding 1.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, C, D).

  Returns:
    (B, H, W, D).
  """
  return _convolution(x, kernel, groups=1)


def _convolution(x, kernel, groups):
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(1, 1),
    padding=((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def _convolution_kernel_gradient(x, kernel, g, groups):
  """Of `_convolution`; the automatic one is summed in the dtype of `x`.

  A narrow sum would be rounded before, and added up between devices too.
  """
  return lax.conv_general_dilated(
    x,
    g,
    window_strides=(1, 1),
    padding=((1, 1), (1, 1)),
    dimension_numbers=('CHWN', 'IHWO', 'HWNC'),
    batch_group_count=groups,
    preferred_element_type=kernel.dtype,
  )


def _conv3x3_fwd(x, kernel):
  return conv3x3(x, kernel), (x, kernel)


def _conv3x3_bwd(residuals, g):
  x, kernel = residuals
  grad_x = conv3x3(g, kernel[::-1, ::-1].swapaxes(2, 3))
  return grad_x, _convolution_kernel_gradient(x, kernel, g, groups=1)


conv3x3.defvjp(_conv3x3_fwd, _conv3x3_bwd)


@jax.custom_vjp
def conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 1x1 convolution as a matrix product.

  The automatic gradient of the kernel is a transposed product, for which XLA
  on a CPU computes `g` anew, against the layout: before a depthwise
  convolution (16 to 84 channels, 4x64x64 pixels) the two gradients took 18 ms
  that way and 7 ms this way.

  Args:
    x: (B, H, W, C).
    kernel: (C, D).

  Returns:
    (B, H, W, D).
  """
  return x @ kernel.astype(x.dtype)


def _conv1x1_fwd(x, kernel):
  return conv1x1(x, kernel), (x, kernel)


def _conv1x1_bwd(residuals, g):
  x, kernel = residuals
  pixels_x, pixels_g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
  by_pixel = (((0,), (0,)), ((), ()))
  return g @ kernel.T.astype(g.dtype), lax.dot_general(
    pixels_x, pixels_g, by_pixel, preferred_element_type=kernel.dtype
  )


conv1x1.defvjp(_conv1x1_fwd, _conv1x1_bwd)


@jax.custom_vjp
def gated_gelu(x: jax.Array) -> jax.Array:
  """gelu(a) * b of the halves a, b of the channels: (..., 2C) to (..., C).

  The exact gelu, a times the normal distribution function of a, in float32:
  elementwise, it costs no more there than in bfloat16. Written with
  its gradient: XLA on a CPU computes anew what made `x` in each of the
  gradient's parts, and here these are fewer than in the automatic one.
  """
  a, b = jnp.split(at_least_float32(x), 2, axis=-1)
  return (a * _normal_cdf(a) * b).astype(x.dtype)


def _normal_cdf(x):
  return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


def _gated_gelu_fwd(x):
  return gated_gelu(x), x


def _gated_gelu_bwd(x, g):
  a, b = jnp.split(at_least_float32(x), 2, axis=-1)
  cdf = _normal_cdf(a)
  density = jnp.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
  grad_a, grad_b = g * b * (cdf + a * density), g * a * cdf
  return (jnp.concatenate([grad_a, grad_b], axis=-1).astype(x.dtype),)


gated_gelu.defvjp(_gated_gelu_fwd, _gated_gelu_bwd)


@jax.custom_vjp
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
  return lax.platform_dependent(
    x,
    widen,
    depthwise,
    narrow,
    cpu=_feed_forward_in_strips,
    default=_feed_forward_at_once,
  )


def _feed_forward_at_once(x, widen, depthwise, narrow):
  wide = depthwise_conv3x3(conv1x1(x, widen), depthwise)
  return conv1x1(gated_gelu(wide), narrow)


def _feed_forward_fwd(*arguments):
  return jax.vjp(_feed_forward_at_once, *arguments)


def _feed_forward_bwd(gradient, g):
  return gradient(g)


feed_forward.defvjp(_feed_forward_fwd, _feed_forward_bwd)

# Bytes of a strip of a widened image. 4 and 16 MiB did nearly as well on cores
# that share 32 MiB of cache; an image of no more than that gains nothing.
_STRIP = 8 * 2**20
_CACHE = 4 * _STRIP


def _feed_forward_in_strips(x, widen, depthwise, narrow):
  """`_feed_forward_at_once`, some rows after the others."""
  b, h, w, c = x.shape
  row = b * w * widen.shape[1] * x.dtype.itemsize
  # A row above and one below are widened twice: of few rows that is a loss.
  strips = -(-h // max(_STRIP // row, 8))
  if h * row <= _CACHE or strips == 1:
    return _feed_forward_at_once(x, widen, depthwise, narrow)
  rows = -(-h // strips)
  # Rows of zeros are widened to zeros, the depthwise convolution's padding.
  padded = jnp.pad(x, ((0, 0), (1, strips * rows - h + 1), (1, 1), (0, 0)))

  def strip(first):
    part = lax.dynamic_slice_in_dim(padded, first, rows + 2, axis=1)
    wide = _taps(conv1x1(part, widen), depthwise)
    return conv1x1(gated_gelu(wide), narrow)

  out = lax.map(strip, rows * jnp.arange(strips))
  return jnp.moveaxis(out, 0, 1).reshape(b, strips * rows, w, c)[:, :h]


@jax.custom_vjp
def depthwise_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Depthwise 3x3 cross-correlation, stride 1, zero padding 1.

  XLA's own depthwise convolution, and the automatic gradient of any other
  form, are many times slower than this on a CPU (see `_kernel_gradient`);
  elsewhere XLA's is used.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, 1, C), the layout of `flax.linen.Conv`.

  Returns:
    (B, H, W, C).
  """
  return lax.platform_dependent(
    x, kernel, cpu=_shifted_sum, default=_xla_depthwise
  )


def _xla_depthwise(x, kernel):
  return _convolution(x, kernel, groups=x.shape[-1])


def _shifted_sum(x, kernel):
  return _taps(_pad(x), kernel)


def _taps(padded, kernel):
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


def _depthwise_fwd(x, kernel):
  return depthwise_conv3x3(x, kernel), (x, kernel)


def _depthwise_bwd(residuals, g):
  return lax.platform_dependent(
    *residuals, g, cpu=_shifted_gradients, default=_xla_gradients
  )


def _xla_gradients(x, kernel, g):
  grad_x = _xla_depthwise(g, kernel[::-1, ::-1])
  return grad_x, _convolution_kernel_gradient(x, kernel, g, x.shape[-1])


def _shifted_gradients(x, kernel, g):
  grad_x = _shifted_sum(g, kernel[::-1, ::-1])
  return grad_x, _kernel_gradient(x, g).astype(kernel.dtype)


def _kernel_gradient(x, g):
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


depthwise_conv3x3.defvjp(_depthwise_fwd, _depthwise_bwd)
