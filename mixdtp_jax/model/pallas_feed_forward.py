"""A block's feed-forward in TPU kernels: nothing wide leaves the fast memory.

The widened image is 5.3 times as large as the image itself. Here 128 of its
channels at a time exist, in the memory beside the compute units (VMEM), for
one image of the batch after another. The gradient's kernel needs the input
alone and makes the rest anew.

In the kernels an image is a list of pixels, row by row, so that a pixel's
neighbours are 1 and W places away; masks stand for the left and right border.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_LANES = 128  # channels of a register, and of the products' units
_SUBLANES = 16  # pixels of a tile of bfloat16; float32 has 8
_PIECE = 256  # pixels that are computed at once, at most
_VMEM = 100 * 2**20  # bytes, of the 128 MiB of a v5e or v6e
_EPSILON = 1e-5


class Arguments(NamedTuple):
  """What both kernels compute with.

  Attributes:
    x: (B, H, W, C), float32 or bfloat16, of which `fits` is true.
    scale: (C,), of the layer norm.
    bias: (C,), of the layer norm.
    widen: (C, 2D), the 1x1 kernel before.
    depthwise: (3, 3, 1, 2D).
    narrow: (D, C), the 1x1 kernel after.
  """

  x: jax.Array
  scale: jax.Array
  bias: jax.Array
  widen: jax.Array
  depthwise: jax.Array
  narrow: jax.Array


def fits(shape: tuple[int, ...], hidden: int) -> bool:
  """Whether images (B, H, W, C) can be computed so.

  The memory has to hold a whole image of the batch, and a few rows have to
  fill whole tiles.
  """
  _, h, w, c = shape
  return _rows_at_once(h, w) > 0 and _vmem(h, w, c, hidden) <= _VMEM


def _rows_at_once(h, w):
  """Rows of a piece: they divide the image and fill tiles; 0: there are none.

  As many as _PIECE allows, or else the fewest.
  """
  possible = [
    rows
    for rows in range(1, h + 1)
    if h % rows == 0 and rows * w % _SUBLANES == 0
  ]
  small = [rows for rows in possible if rows * w <= _PIECE]
  return max(small) if small else min(possible, default=0)


def _vmem(h, w, c, hidden):
  """Bytes that the gradient needs, about: four wide images, and so on."""
  c, hidden = _round_up(c, _LANES), _round_up(hidden, _LANES)
  pixels = h * w + 2 * _margin(w)
  weights = 3 * c * hidden
  # x, g and their gradient in flight twice; the normal and its gradient.
  return pixels * (4 * 4 * _LANES + (3 * 2 * 4 + 4 + 4) * c) + weights * 2 * 8


def _round_up(n, multiple):
  return -(-n // multiple) * multiple


def _margin(w):
  """Pixels of zeros before and after an image: its rows -1 and H, and more."""
  return _round_up(w, 8) + 8


class _Image(NamedTuple):
  """How the images of a call lie in the kernels."""

  width: int
  pixels: int
  piece: int

  def pieces(self, body):
    """Calls it with the first pixel of each piece."""

    def step(index, _):
      body(pl.multiple_of(index * self.piece, _SUBLANES))

    jax.lax.fori_loop(0, self.pixels // self.piece, step, None)

  @property
  def wide(self):
    """The shape of two times 128 channels with their margins."""
    return 2, self.pixels + 2 * _margin(self.width), _LANES


def _image(x):
  _, h, w, _ = x.shape
  return _Image(w, h * w, _rows_at_once(h, w) * w)


def forward(arguments: Arguments, *, interpret: bool = False) -> jax.Array:
  """The input plus the feed-forward of its layer norm: (B, H, W, C).

  Sums, and all between the products, are in float32.

  Args:
    arguments: of this device.
    interpret: compute it without a TPU, slowly.
  """
  x = arguments.x
  image = _image(x)
  b, c = x.shape[0], x.shape[3]
  pixels, weights = _in_kernel_form(arguments)
  one = pl.BlockSpec((1, image.pixels, c), lambda i: (i, 0, 0))
  out = pl.pallas_call(
    functools.partial(_forward_kernel, image),
    grid=(b,),
    in_specs=[one, *map(_whole, weights)],
    out_specs=one,
    out_shape=jax.ShapeDtypeStruct(pixels.shape, x.dtype),
    scratch_shapes=[
      pltpu.VMEM((image.pixels, c), x.dtype),
      pltpu.VMEM((image.pixels, c), jnp.float32),
      pltpu.VMEM(image.wide, jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(vmem_limit_bytes=_VMEM),
    interpret=interpret,
    name='feed_forward',
  )(pixels, *weights)
  return out.reshape(x.shape)


def gradients(
  arguments: Arguments, g: jax.Array, *, interpret: bool = False
) -> Arguments:
  """Those of all arguments, `g` being that of what `forward` returns.

  Args:
    arguments: of `forward`.
    g: (B, H, W, C).
    interpret: as of `forward`.
  """
  x, _, _, widen, depthwise, narrow = arguments
  image = _image(x)
  b, c = x.shape[0], x.shape[3]
  pixels, weights = _in_kernel_form(arguments)
  one = pl.BlockSpec((1, image.pixels, c), lambda i: (i, 0, 0))
  sums = [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in weights]
  grad_x, *grads = pl.pallas_call(
    functools.partial(_backward_kernel, image),
    grid=(b,),
    in_specs=[one, one, *map(_whole, weights)],
    out_specs=[one, *map(_whole, weights)],
    out_shape=[jax.ShapeDtypeStruct(pixels.shape, x.dtype), *sums],
    scratch_shapes=[
      pltpu.VMEM((image.pixels, c), x.dtype),
      pltpu.VMEM((image.pixels, c), jnp.float32),
      pltpu.VMEM(image.wide, jnp.float32),
      pltpu.VMEM(image.wide, jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(vmem_limit_bytes=_VMEM),
    interpret=interpret,
    name='feed_forward_gradients',
  )(pixels, g.reshape(pixels.shape), *weights)
  scale, bias, widened, taps, narrowed = grads
  hidden = narrow.shape[0]
  return Arguments(
    grad_x.reshape(x.shape),
    scale[0],
    bias[0],
    _join(widened, hidden).astype(widen.dtype),
    _join(taps, hidden).reshape(depthwise.shape).astype(depthwise.dtype),
    narrowed.reshape(-1, c)[:hidden].astype(narrow.dtype),
  )


def _whole(array):
  return pl.BlockSpec(array.shape, lambda i: (0,) * array.ndim)


def _in_kernel_form(arguments):
  """Pixels (B, H W, C), and the weights by groups of 128 hidden channels."""
  x, scale, bias, widen, depthwise, narrow = arguments
  b, h, w, c = x.shape
  hidden = narrow.shape[0]
  missing = -hidden % _LANES
  narrow = jnp.pad(narrow.astype(x.dtype), ((0, missing), (0, 0)))
  weights = (
    scale.reshape(1, c),
    bias.reshape(1, c),
    _split(widen.astype(x.dtype), hidden),
    _split(depthwise.reshape(9, 2 * hidden), hidden),
    narrow.reshape(-1, _LANES, c),
  )
  return x.reshape(b, h * w, c), weights


def _split(matrix, hidden):
  """(N, 2 hidden) to (groups, 2, N, 128), filled with zeros."""
  n = matrix.shape[0]
  halves = matrix.reshape(n, 2, hidden)
  halves = jnp.pad(halves, ((0, 0), (0, 0), (0, -hidden % _LANES)))
  return halves.reshape(n, 2, -1, _LANES).transpose(2, 1, 0, 3)


def _join(groups, hidden):
  """The inverse of `_split`."""
  n = groups.shape[2]
  halves = groups.transpose(2, 1, 0, 3).reshape(n, 2, -1)
  return halves[:, :, :hidden].reshape(n, 2 * hidden)


def _forward_kernel(
  image, x, scale, bias, widen, taps, narrow, out, normal, total, wide
):
  borders = _borders(image)
  _clear_margins(wide, image)

  def begin(at):
    part = x[0, pl.ds(at, image.piece), :].astype(jnp.float32)
    centred, deviation = _normalise(part)
    part_normal = centred * deviation * scale[...] + bias[...]
    normal[pl.ds(at, image.piece), :] = part_normal.astype(normal.dtype)
    total[pl.ds(at, image.piece), :] = part

  image.pieces(begin)

  def of_group(group, _):
    _widen(image, normal, widen, wide, group)

    def narrow_piece(at):
      a, b = (
        _depthwise(image, borders, wide, taps, group, half, at)
        for half in range(2)
      )
      gate = (a * _normal_cdf(a) * b).astype(normal.dtype)
      total[pl.ds(at, image.piece), :] += _product(gate, narrow[group])

    image.pieces(narrow_piece)

  jax.lax.fori_loop(0, widen.shape[0], of_group, None)

  def end(at):
    part = total[pl.ds(at, image.piece), :]
    out[0, pl.ds(at, image.piece), :] = part.astype(out.dtype)

  image.pieces(end)


def _backward_kernel(
  image,
  x, g, scale, bias, widen, taps, narrow,
  grad_x, grad_scale, grad_bias, grad_widen, grad_taps, grad_narrow,
  normal, grad_normal, wide, grad_wide,
):  # fmt: skip
  borders = _borders(image)
  _clear_margins(wide, image)
  _clear_margins(grad_wide, image)

  @pl.when(pl.program_id(0) == 0)
  def _():
    for sums in (grad_scale, grad_bias, grad_widen, grad_taps, grad_narrow):
      sums[...] = jnp.zeros(sums.shape, sums.dtype)

  def begin(at):
    centred, deviation = _normalise(x[0, pl.ds(at, image.piece), :])
    part = centred * deviation * scale[...] + bias[...]
    normal[pl.ds(at, image.piece), :] = part.astype(normal.dtype)
    grad_normal[pl.ds(at, image.piece), :] = jnp.zeros_like(part)

  image.pieces(begin)

  def of_group(group, _):
    _widen(image, normal, widen, wide, group)

    def gate_piece(at):
      part = g[0, pl.ds(at, image.piece), :]
      a, b = (
        _depthwise(image, borders, wide, taps, group, half, at)
        for half in range(2)
      )
      cdf = _normal_cdf(a)
      density = jnp.exp(-0.5 * a * a) * (1 / math.sqrt(2 * math.pi))
      gate = (a * cdf * b).astype(normal.dtype)
      grad_narrow[group] += _product(gate, part, over=(0, 0))
      grad_gate = _product(part, narrow[group], over=(1, 1))
      for half, grad in enumerate(
        (grad_gate * b * (cdf + a * density), grad_gate * a * cdf)
      ):
        grad_wide[half, pl.ds(at + _margin(image.width), image.piece), :] = grad
        _add_taps(image, borders, wide, grad, grad_taps, group, half, at)

    image.pieces(gate_piece)

    def widen_piece(at):
      part = normal[pl.ds(at, image.piece), :]
      for half in range(2):
        grad = _depthwise(
          image, borders, grad_wide, taps, group, half, at, flipped=True
        ).astype(normal.dtype)
        grad_widen[group, half] += _product(part, grad, over=(0, 0))
        grad_normal[pl.ds(at, image.piece), :] += _product(
          grad, widen[group, half], over=(1, 1)
        )

    image.pieces(widen_piece)

  jax.lax.fori_loop(0, widen.shape[0], of_group, None)

  def end(at):
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

  image.pieces(end)


def _normalise(x):
  """Less its mean, and 1 / the standard deviation, over the channels."""
  x = x.astype(jnp.float32)
  centred = x - x.mean(-1, keepdims=True)
  variance = jnp.square(centred).mean(-1, keepdims=True)
  return centred, jax.lax.rsqrt(variance + _EPSILON)


def _normal_cdf(x):
  return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def _product(x, y, over=(1, 0)):
  """Of matrices, over an axis of each, in float32."""
  axes = (((over[0],), (over[1],)), ((), ()))
  return jax.lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)


def _clear_margins(wide, image):
  margin = _margin(image.width)
  zeros = jnp.zeros((2, margin, _LANES), jnp.float32)
  wide[:, pl.ds(0, margin), :] = zeros
  wide[:, pl.ds(margin + image.pixels, margin), :] = zeros


def _widen(image, normal, widen, wide, group):
  """128 channels of each half of the widened image."""

  def piece(at):
    part = normal[pl.ds(at, image.piece), :]
    to = pl.ds(at + _margin(image.width), image.piece)
    for half in range(2):
      wide[half, to, :] = _product(part, widen[group, half])

  image.pieces(piece)


def _borders(image):
  """For dx = -1, 0, 1: whether a pixel of a piece has that neighbour."""
  shape = image.piece, _LANES
  column = jax.lax.broadcasted_iota(jnp.int32, shape, 0) % image.width
  return {-1: column > 0, 1: column < image.width - 1}


def _rows(image, wide, half, at):
  """For dy = -1, 0, 1: the piece moved by dy rows, and 8 pixels around it."""
  above = _round_up(image.width, 8)
  size = image.piece + 16
  around = wide[half, pl.ds(at, size + 2 * above), :]
  return {
    dy: around[above + dy * image.width : above + dy * image.width + size]
    for dy in (-1, 0, 1)
  }


def _depthwise(
  image, borders, wide, taps, group, half, at, *, flipped=False
):  # fmt: skip
  """The depthwise convolution of a piece: (piece, 128)."""
  rows = _rows(image, wide, half, at)
  total = 0.0
  for dx in (-1, 0, 1):
    column = sum(
      row * _tap(taps, group, half, -dy if flipped else dy,
                 -dx if flipped else dx)
      for dy, row in rows.items()
    )[8 + dx : 8 + dx + image.piece]  # fmt: skip
    total += jnp.where(borders[dx], column, 0.0) if dx else column
  return total


def _tap(taps, group, half, dy, dx):
  return taps[group, half, pl.ds(3 * dy + dx + 4, 1), :]


def _add_taps(image, borders, wide, grad, grad_taps, group, half, at):
  """Adds a piece's part of the taps' gradient."""
  rows = _rows(image, wide, half, at)
  zeros = jnp.zeros((16, _LANES), jnp.float32)
  for dx in (-1, 0, 1):
    masked = jnp.where(borders[dx], grad, 0.0) if dx else grad
    moved = jnp.concatenate([zeros, masked, zeros])
    moved = moved[8 - dx : 8 - dx + image.piece + 16]
    for dy, row in rows.items():
      grad_taps[group, half, pl.ds(3 * dy + dx + 4, 1), :] += (moved * row).sum(
        0, keepdims=True
      )
