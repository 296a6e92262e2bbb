"""Dense convolutions, products over pixels and layer norm, with gradients.

Everywhere in ops/, arrays are NHWC and functions are pure. Results have the
dtype of the images. Kernels may be wider (float32 for bfloat16 images): they
are rounded when used, and their gradients are summed in their own dtype.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mixdtp_jax.ops import choice
from mixdtp_jax.ops.cpu import native


def at_least_float32(x: jax.Array) -> jax.Array:
  """Returns the array in float32, or unchanged if it is wider."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def keep_inputs(function: Callable) -> Callable:
  """Returns the forward rule of a `custom_vjp` that keeps the arguments."""
  return lambda *arguments: (function(*arguments), arguments)


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes a 3x3 cross-correlation with stride 1 and zero padding 1.

  Images (B, H, W, C) and a kernel (3, 3, C, D) give (B, H, W, D).
  """
  # Native code computes blocks of 16 channels. XLA's is as fast if a kernel
  # maps few channels to more, or more to few.
  inputs, outputs = kernel.shape[2:]
  if min(inputs, outputs) < 16 < max(inputs, outputs):
    return _xla_conv3x3(x, kernel)
  return choice.by_platform(native.conv3x3, _xla_conv3x3, x, kernel)


def grouped_conv3x3(
  x: jax.Array, kernel: jax.Array, groups: int, *, inside: bool = False
) -> jax.Array:
  """Computes `conv3x3` of groups of channels.

  The kernel is (3, 3, C / groups, D). With `inside` there is no padding, and
  the result is (B, H - 2, W - 2, D).
  """
  pad = 0 if inside else 1
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(1, 1),
    padding=((pad, pad), (pad, pad)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


_xla_conv3x3 = functools.partial(grouped_conv3x3, groups=1)


def grouped_conv3x3_kernel_gradient(
  x: jax.Array, kernel: jax.Array, g: jax.Array, groups: int
) -> jax.Array:
  """Computes the kernel's gradient of `grouped_conv3x3`, in its own dtype.

  JAX's automatic gradient is summed in the dtype of `x`: in bfloat16 it would
  be rounded before devices add up their parts.
  """
  if not x.size:  # which XLA refuses
    return jnp.zeros_like(kernel)
  return lax.conv_general_dilated(
    x,
    g,
    window_strides=(1, 1),
    padding=((1, 1), (1, 1)),
    dimension_numbers=('CHWN', 'IHWO', 'HWNC'),
    batch_group_count=groups,
    preferred_element_type=kernel.dtype,
  )


_xla_conv3x3_kernel_gradient = functools.partial(
  grouped_conv3x3_kernel_gradient, groups=1
)


def _conv3x3_bwd(residuals, g):
  x, kernel = residuals
  grad_x = conv3x3(g, kernel[::-1, ::-1].swapaxes(2, 3))
  return grad_x, _kernel_gradient(_xla_conv3x3_kernel_gradient, x, kernel, g)


def _kernel_gradient(xla, x, kernel, g):
  return choice.by_platform(
    native.kernel_gradient, xla, x, kernel, g, numbers=kernel.size
  )


conv3x3.defvjp(keep_inputs(conv3x3), _conv3x3_bwd)


@jax.custom_vjp
def conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes a 1x1 convolution: (B, H, W, C) and (C, D) to (B, H, W, D).

  The automatic gradient of the kernel is a transposed product, for which XLA on
  a CPU recomputes `g` in an unsuitable layout, and takes twice as long.
  """
  return x @ kernel.astype(x.dtype)


def _conv1x1_bwd(residuals, g):
  x, kernel = residuals
  grad_x = g @ kernel.T.astype(g.dtype)
  return grad_x, conv1x1_kernel_gradient(x, kernel, g)


def conv1x1_kernel_gradient(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> jax.Array:
  """Computes the kernel's gradient of `conv1x1`, in the kernel's dtype."""
  return _kernel_gradient(_xla_conv1x1_kernel_gradient, x, kernel, g)


def _xla_conv1x1_kernel_gradient(x, kernel, g):
  pixels_x, pixels_g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
  by_pixel = (((0,), (0,)), ((), ()))
  return lax.dot_general(
    pixels_x, pixels_g, by_pixel, preferred_element_type=kernel.dtype
  )


conv1x1.defvjp(keep_inputs(conv1x1), _conv1x1_bwd)


@jax.custom_vjp
def gram(x: jax.Array, y: jax.Array) -> jax.Array:
  """Computes inner products of channels over the pixels.

  Images (B, H, W, C) and (B, H, W, D) give (B, C, D), in float32 or wider.
  """
  numbers = x.shape[3] * y.shape[3]
  return choice.by_platform(native.gram, _xla_gram, x, y, numbers=numbers)


def _xla_gram(x, y):
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.einsum(
    'bnc,bnd->bcd', _pixels(x), _pixels(y), preferred_element_type=wide
  )


def _pixels(x):
  """Reshapes (B, H, W, C) to (B, H * W, C): on a TPU, XLA moves less."""
  b, h, w, c = x.shape
  return x.reshape(b, h * w, c)


def _gram_bwd(residuals, g):
  # On a CPU, the automatic gradient would transpose images to channels first.
  x, y = residuals
  return mix_channels(y, g.swapaxes(1, 2)), mix_channels(x, g)


gram.defvjp(keep_inputs(gram), _gram_bwd)


@jax.custom_vjp
def mix_channels(x: jax.Array, matrix: jax.Array) -> jax.Array:
  """Computes a 1x1 convolution with a kernel for each image.

  Images (B, H, W, C) and kernels (B, C, D) give (B, H, W, D).
  """
  mixed = jnp.einsum('bnc,bcd->bnd', _pixels(x), matrix.astype(x.dtype))
  return mixed.reshape(*x.shape[:3], matrix.shape[2])


def _mix_bwd(residuals, g):
  x, matrix = residuals
  return mix_channels(g, matrix.swapaxes(1, 2)), gram(x, g).astype(matrix.dtype)


mix_channels.defvjp(keep_inputs(mix_channels), _mix_bwd)


@jax.custom_vjp
def sum_of_squares(x: jax.Array) -> jax.Array:
  """Sums squares over the pixels: (B, H, W, C) to (B, C).

  The sum is in float32 or wider. The automatic gradient would keep a float32
  copy of the images.
  """
  return jnp.sum(jnp.square(at_least_float32(x)), axis=(1, 2))


def _sum_of_squares_bwd(residuals, g):
  (x,) = residuals
  grad = 2 * at_least_float32(x) * g[:, None, None, :]
  return (grad.astype(x.dtype),)


sum_of_squares.defvjp(keep_inputs(sum_of_squares), _sum_of_squares_bwd)


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
  """Normalises the channels of each pixel, in float32 or wider.

  Images are (B, H, W, C), scale and bias (C,).
  """
  return choice.by_platform(native.layer_norm, _xla_layer_norm, x, scale, bias)


def _xla_layer_norm(x, scale, bias):
  wide = at_least_float32(x)
  # The faster E[x^2] - E[x]^2 loses digits, and with them parity to PyTorch.
  centred = wide - wide.mean(-1, keepdims=True)
  variance = jnp.square(centred).mean(-1, keepdims=True)
  normal = centred * lax.rsqrt(variance + 1e-5)
  return (normal * scale + bias).astype(x.dtype)


def _layer_norm_bwd(residuals, g):
  return choice.by_platform(
    lambda x, scale, bias, g: native.layer_norm_gradients(x, scale, g),
    lambda x, scale, bias, g: jax.vjp(_xla_layer_norm, x, scale, bias)[1](g),
    *residuals,
    g,
  )


layer_norm.defvjp(keep_inputs(layer_norm), _layer_norm_bwd)
