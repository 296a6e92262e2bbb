"""The depthwise 3x3 convolution inside TPU kernels, and its gradients.

An image is a list of pixels, row by row, so a pixel's neighbours are 1 and W
places away. Masks stand for the left and right border; zeros before and after
the image (its margins) stand for the upper and lower one. A kernel holds 128
channels at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

Ref = Any  # an array in a kernel's memory, or a part of one

LANES = 128  # channels of a register and of the matrix units
_TILE = 16  # pixels of a bfloat16 tile; a float32 tile has 8
_PIECE = 256  # pixels computed at once, at most


class Image(NamedTuple):
  """The layout of an image in a kernel's memory."""

  width: int  # pixels of a row
  pixels: int  # of the image
  # Pixels computed at once: whole rows that divide the image and fill tiles, as
  # many as _PIECE allows, or else the fewest. 0 if no number of rows does both.
  piece: int

  @classmethod
  def of_size(cls, h: int, w: int) -> 'Image':
    """Returns the layout of images of h rows of w pixels."""
    possible = [
      rows * w
      for rows in range(1, h + 1)
      if h % rows == 0 and rows * w % _TILE == 0
    ]
    small = [pixels for pixels in possible if pixels <= _PIECE]
    piece = max(small) if small else min(possible, default=0)
    return cls(w, h * w, piece)

  @property
  def margin(self) -> int:
    """Zeros before and after an image: a row, rounded up to tiles, plus 8."""
    return round_up(self.width, 8) + 8

  @property
  def with_margins(self) -> tuple[int, int]:
    """Shape of 128 channels with their margins."""
    return self.pixels + 2 * self.margin, LANES

  def for_pieces(self, body: Callable[[jax.Array], None]) -> None:
    """Calls `body` with the first pixel of each piece."""

    def step(index, _):
      body(pl.multiple_of(index * self.piece, _TILE))

    jax.lax.fori_loop(0, self.pixels // self.piece, step, None)


def round_up(n: int, multiple: int) -> int:
  """Returns the smallest multiple that is at least n."""
  return pl.cdiv(n, multiple) * multiple


def clear_margins(image: Image, wide: Ref) -> None:
  """Sets the margins of 128 channels to zero."""
  zeros = jnp.zeros((image.margin, LANES), wide.dtype)
  wide[pl.ds(0, image.margin), :] = zeros
  wide[pl.ds(image.margin + image.pixels, image.margin), :] = zeros


def neighbours(image: Image) -> dict[int, jax.Array]:
  """Returns for dx = -1 and 1 which pixels of a piece have that neighbour."""
  shape = image.piece, LANES
  column = jax.lax.broadcasted_iota(jnp.int32, shape, 0) % image.width
  return {-1: column > 0, 1: column < image.width - 1}


def depthwise(
  image: Image,
  masks: dict[int, jax.Array],
  wide: Ref,
  taps: Ref,
  at: jax.Array,
  *,
  flipped: bool = False,
) -> jax.Array:
  """Convolves the piece that begins at the pixel `at`: (piece, 128), float32.

  `masks` are the `neighbours` of the image, `wide` are 128 channels of it with
  their margins, float32, and `taps` (9, 128) go row by row. `flipped` reverses
  the taps, which gives the gradient of the input.
  """
  rows = _rows(image, wide, at)
  sign = -1 if flipped else 1
  total: Any = 0.0
  for dx in (-1, 0, 1):
    column = sum(
      row * taps[_tap(sign * dy, sign * dx), :] for dy, row in rows.items()
    )
    column = column[8 + dx : 8 + dx + image.piece]
    total += jnp.where(masks[dx], column, 0.0) if dx else column
  return total


def add_taps_gradient(
  image: Image,
  masks: dict[int, jax.Array],
  wide: Ref,
  grad: jax.Array,
  grad_taps: Ref,
  at: jax.Array,
) -> None:
  """Adds a piece's part of the gradient of `depthwise` to that of its taps.

  `grad` (piece, 128) is the gradient of its result; it is added to `grad_taps`
  (9, 128).
  """
  rows = _rows(image, wide, at)
  zeros = jnp.zeros((16, LANES), grad.dtype)
  for dx in (-1, 0, 1):
    masked = jnp.where(masks[dx], grad, 0.0) if dx else grad
    moved = jnp.concatenate([zeros, masked, zeros])
    moved = moved[8 - dx : 8 - dx + image.piece + 16]
    for dy, row in rows.items():
      grad_taps[_tap(dy, dx), :] += (moved * row).sum(0, keepdims=True)


def _tap(dy, dx):
  return pl.ds(3 * dy + dx + 4, 1)


def _rows(image, wide, at):
  """Returns for dy = -1, 0, 1 the piece moved dy rows, 8 pixels around it."""
  above = image.margin - 8
  size = image.piece + 16
  around = wide[pl.ds(at, size + 2 * above), :]
  return {
    dy: around[above + dy * image.width : above + dy * image.width + size]
    for dy in (-1, 0, 1)
  }
