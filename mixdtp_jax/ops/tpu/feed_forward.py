"""A block's feed-forward as TPU kernels that keep the widened image in VMEM.

The widened image is 5.3 times as large as the image itself. The kernels take
one image of the batch after the other, and hold 128 channels of the widened
image at a time in VMEM, the memory beside the compute units. The gradient's
kernel needs only the input and recomputes the rest. depthwise.py describes the
layout of an image in VMEM.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mixdtp_jax.ops.feed_forward import gate_with_gradients, normal_cdf
from mixdtp_jax.ops.tpu.depthwise import (
  LANES,
  Image,
  add_taps_gradient,
  clear_margins,
  depthwise,
  neighbours,
  round_up,
)

_VMEM = 62 * 2**20  # bytes; v5p has 64 MiB, v5e and v6e 128, v4 only 16
_EPSILON = 1e-5


class Arguments(NamedTuple):
  """The arguments of both kernels."""

  x: jax.Array  # (B, H, W, C), float32 or bfloat16, of a shape that `fits`
  scale: jax.Array  # (C,), of the layer norm
  bias: jax.Array  # (C,), of the layer norm
  widen: jax.Array  # (C, 2D), the first 1x1 kernel
  depthwise: jax.Array  # (3, 3, 1, 2D)
  narrow: jax.Array  # (D, C), the last 1x1 kernel


def fits(shape: tuple[int, ...], dtype: jnp.dtype, hidden: int) -> bool:
  """Returns whether the kernels can compute such images on v5e, v5p and v6e.

  VMEM must hold a whole image of the batch (B, H, W, C), and a few rows must
  fill whole tiles. `hidden` is D, the channels of half the widened image.
  """
  _, h, w, c = shape
  image, size = Image.of_size(h, w), jnp.dtype(dtype).itemsize
  return image.piece > 0 and _vmem(image, c, size, hidden) <= _VMEM


def _vmem(image, c, size, hidden):
  """Returns the bytes that the gradient needs; `size`: bytes per number."""
  c, hidden = round_up(c, LANES), round_up(hidden, LANES)
  # Two halves of the widened image and of its gradient; then x, g, the gradient
  # of x, the normalised image, and its gradient.
  wide = 2 * 2 * 4 * math.prod(image.with_margins)
  images = (4 * size + 4) * image.pixels * c
  # Kernels and their gradients, double-buffered.
  return wide + images + 2 * (size + 4) * 3 * c * hidden


def forward(arguments: Arguments, *, interpret: bool = False) -> jax.Array:
  """Computes the input plus the feed-forward of its layer norm: (B, H, W, C).

  Sums and everything between the products are in float32. The arguments are
  this device's part. `interpret` runs without a TPU, slowly.
  """
  image = Image.of_size(*arguments.x.shape[1:3])
  pixels, weights = _in_kernel_form(arguments)
  kernel = functools.partial(_forward_kernel, image)
  (out,) = _run(
    kernel, image, [pixels], weights, [], interpret, name='feed_forward'
  )
  return out.reshape(arguments.x.shape)


def gradients(
  arguments: Arguments, g: jax.Array, *, interpret: bool = False
) -> Arguments:
  """Computes the gradients of all arguments of `forward`.

  `g` (B, H, W, C) is the gradient of its result.
  """
  x, _, _, widen, depthwise, narrow = arguments
  image = Image.of_size(*x.shape[1:3])
  pixels, weights = _in_kernel_form(arguments)
  kernel = functools.partial(_backward_kernel, image)
  images = [pixels, g.reshape(pixels.shape)]
  grad_x, scale, bias, widened, taps, narrowed = _run(
    kernel, image, images, weights, weights, interpret,
    name='feed_forward_gradients',
  )  # fmt: skip
  hidden, c = narrow.shape
  return Arguments(
    grad_x.reshape(x.shape),
    scale[0],
    bias[0],
    _join(widened, hidden).astype(widen.dtype),
    _join(taps, hidden).reshape(depthwise.shape).astype(depthwise.dtype),
    narrowed.reshape(-1, c)[:hidden].astype(narrow.dtype),
  )


def _run(kernel, image, images, weights, sums, interpret, *, name):
  """Runs a kernel for each image; `sums` have the shapes of further results."""
  b, pixels, c = images[0].shape
  dtype = images[0].dtype
  # A second buffer would save microseconds.
  one = pl.BlockSpec(
    (1, pixels, c), lambda i: (i, 0, 0), pipeline_mode=pl.Buffered(1)
  )
  wide = pltpu.VMEM((2, *image.with_margins), jnp.float32)
  return pl.pallas_call(
    kernel,
    grid=(b,),
    in_specs=[*[one] * len(images), *map(_whole, weights)],
    out_specs=[one, *map(_whole, sums)],
    out_shape=[
      jax.ShapeDtypeStruct(images[0].shape, dtype),
      *(jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in sums),
    ],
    scratch_shapes=[
      pltpu.VMEM((pixels, c), dtype),
      pltpu.VMEM((pixels, c), jnp.float32),
      *[wide] * len(images),
    ],
    compiler_params=pltpu.CompilerParams(vmem_limit_bytes=_VMEM),
    interpret=interpret,
    name=name,
  )(*images, *weights)


def _whole(array):
  return pl.BlockSpec(array.shape, lambda i: (0,) * array.ndim)


def _in_kernel_form(arguments):
  """Returns pixels (B, H W, C), and weights in groups of 128 channels."""
  x, scale, bias, widen, depthwise, narrow = arguments
  b, h, w, c = x.shape
  hidden = narrow.shape[0]
  missing = -hidden % LANES
  narrow = jnp.pad(narrow.astype(x.dtype), ((0, missing), (0, 0)))
  weights = (
    scale.reshape(1, c),
    bias.reshape(1, c),
    _split(widen.astype(x.dtype), hidden),
    _split(depthwise.reshape(9, 2 * hidden), hidden),
    narrow.reshape(-1, LANES, c),
  )
  return x.reshape(b, h * w, c), weights


def _split(matrix, hidden):
  """Splits (N, 2 hidden) into (groups, 2, N, 128), padded with zeros."""
  n = matrix.shape[0]
  halves = matrix.reshape(n, 2, hidden)
  halves = jnp.pad(halves, ((0, 0), (0, 0), (0, -hidden % LANES)))
  return halves.reshape(n, 2, -1, LANES).transpose(2, 1, 0, 3)


def _join(groups, hidden):
  """Inverts `_split`."""
  n = groups.shape[2]
  halves = groups.transpose(2, 1, 0, 3).reshape(n, 2, -1)
  return halves[:, :, :hidden].reshape(n, 2 * hidden)


def _forward_kernel(
  image, x, scale, bias, widen, taps, narrow, out, normal, total, wide
):
  masks = neighbours(image)
  for half in range(2):
    clear_margins(image, wide.at[half])

  def begin(at):
    part = x[0, pl.ds(at, image.piece), :].astype(jnp.float32)
    centred, deviation = _normalise(part)
    part_normal = centred * deviation * scale[...] + bias[...]
    normal[pl.ds(at, image.piece), :] = part_normal.astype(normal.dtype)
    total[pl.ds(at, image.piece), :] = part

  image.for_pieces(begin)

  def of_group(group, _):
    _widen(image, normal, widen, wide, group)

    def narrow_piece(at):
      a, b = (
        depthwise(image, masks, wide.at[half], taps.at[group, half], at)
        for half in range(2)
      )
      gate = (a * normal_cdf(a) * b).astype(normal.dtype)
      total[pl.ds(at, image.piece), :] += _product(gate, narrow[group])

    image.for_pieces(narrow_piece)

  jax.lax.fori_loop(0, widen.shape[0], of_group, None)

  def end(at):
    part = total[pl.ds(at, image.piece), :]
    out[0, pl.ds(at, image.piece), :] = part.astype(out.dtype)

  image.for_pieces(end)


def _backward_kernel(
  image,
  x, g, scale, bias, widen, taps, narrow,
  grad_x, grad_scale, grad_bias, grad_widen, grad_taps, grad_narrow,
  normal, grad_normal, wide, grad_wide,
):  # fmt: skip
  masks = neighbours(image)
  for half in range(2):
    clear_margins(image, wide.at[half])
    clear_margins(image, grad_wide.at[half])

  @pl.when(pl.program_id(0) == 0)
  def _():
    for sums in (grad_scale, grad_bias, grad_widen, grad_taps, grad_narrow):
      sums[...] = jnp.zeros(sums.shape, sums.dtype)

  def begin(at):
    centred, deviation = _normalise(x[0, pl.ds(at, image.piece), :])
    part = centred * deviation * scale[...] + bias[...]
    normal[pl.ds(at, image.piece), :] = part.astype(normal.dtype)
    grad_normal[pl.ds(at, image.piece), :] = jnp.zeros_like(part)

  image.for_pieces(begin)

  def of_group(group, _):
    _widen(image, normal, widen, wide, group)

    def gate_piece(at):
      part = g[0, pl.ds(at, image.piece), :]
      a, b = (
        depthwise(image, masks, wide.at[half], taps.at[group, half], at)
        for half in range(2)
      )
      grad_gate = _product(part, narrow[group], over=(1, 1))
      gate, *grads = gate_with_gradients(a, b, grad_gate)
      gate = gate.astype(normal.dtype)
      grad_narrow[group] += _product(gate, part, over=(0, 0))
      for half, grad in enumerate(grads):
        grad_wide[half, pl.ds(at + image.margin, image.piece), :] = grad
        add_taps_gradient(
          image, masks, wide.at[half], grad, grad_taps.at[group, half], at
        )

    image.for_pieces(gate_piece)

    def widen_piece(at):
      part = normal[pl.ds(at, image.piece), :]
      for half in range(2):
        tap = taps.at[group, half]
        grad = depthwise(
          image, masks, grad_wide.at[half], tap, at, flipped=True
        ).astype(normal.dtype)
        grad_widen[group, half] += _product(part, grad, over=(0, 0))
        grad_normal[pl.ds(at, image.piece), :] += _product(
          grad, widen[group, half], over=(1, 1)
        )

    image.for_pieces(widen_piece)

  jax.lax.fori_loop(0, widen.shape[0], of_group, None)

  _through_norm(image, x, g, scale, grad_normal, grad_x, grad_scale, grad_bias)


def _through_norm(
  image, x, g, scale, grad_normal, grad_x, grad_scale, grad_bias
):
  """Propagates the gradient through the layer norm, and adds the residual."""

  def piece(at):
    centred, deviation = _normalise(x[0, pl.ds(at, image.piece), :])
    standard = centred * deviation
    grad = grad_normal[pl.ds(at, image.piece), :]
    grad_bias[...] += grad.sum(0, keepdims=True)
    grad_scale[...] += (grad * standard).sum(0, keepdims=True)
    grad *= scale[...]
    along = (grad * standard).mean(-1, keepdims=True)
    grad = deviation * (grad - grad.mean(-1, keepdims=True) - standard * along)
    grad += g[0, pl.ds(at, image.piece), :].astype(jnp.float32)
    grad_x[0, pl.ds(at, image.piece), :] = grad.astype(grad_x.dtype)

  image.for_pieces(piece)


def _normalise(x):
  """Returns x minus its mean, and 1 / standard deviation, over channels."""
  x = x.astype(jnp.float32)
  centred = x - x.mean(-1, keepdims=True)
  variance = jnp.square(centred).mean(-1, keepdims=True)
  return centred, jax.lax.rsqrt(variance + _EPSILON)


def _product(x, y, over=(1, 0)):
  """Multiplies matrices over the given axes, in float32."""
  axes = (((over[0],), (over[1],)), ((), ()))
  return jax.lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)


def _widen(image, normal, widen, wide, group):
  """Computes 128 channels of each half of the widened image."""

  def piece(at):
    part = normal[pl.ds(at, image.piece), :]
    to = pl.ds(at + image.margin, image.piece)
    for half in range(2):
      wide[half, to, :] = _product(part, widen[group, half])

  image.for_pieces(piece)
