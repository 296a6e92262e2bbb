"""The depthwise 3x3 convolution inside of TPU kernels, and its gradients.

An image is a list of pixels, row by row, so that a pixel's neighbours are 1 and
W places away. Masks stand for the left and right border; zeros before and after
the image, its margins, for the upper and lower one. 128 of its channels are
there at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

Ref = Any  # an array in a kernel's memory, or a part of one

LANES = 128  # channels of a register, and of the products' units
_TILE = 16  # pixels of a tile of bfloat16; float32 has 8
_PIECE = 256  # pixels that are computed at once, at most


class Image(NamedTuple):
  """How images lie.

  Attributes:
    width: pixels of a row.
    pixels: of an image.
    piece: pixels that are computed at once: whole rows, which divide the image
      and fill tiles, as many as _PIECE allows or else the fewest. 0: there are
      no such rows.
  """

  width: int
  pixels: int
  piece: int

  @classmethod
  def of_size(cls, h: int, w: int) -> 'Image':
    """Images of H rows of W pixels."""
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
    """Zeros before and after an image: a row, filled up to tiles, and 8."""
    return round_up(self.width, 8) + 8

  @property
  def with_margins(self) -> tuple[int, int]:
    """The shape of 128 channels with their margins."""
    return self.pixels + 2 * self.margin, LANES

  def for_pieces(self, body: Callable[[jax.Array], None]) -> None:
    """Calls it with the first pixel of each piece."""

    def step(index, _):
      body(pl.multiple_of(index * self.piece, _TILE))

    jax.lax.fori_loop(0, self.pixels // self.piece, step, None)


def round_up(n: int, multiple: int) -> int:
  """The least number that is not below n and a multiple."""
  return -(-n // multiple) * multiple


def clear_margins(image: Image, wide: Ref) -> None:
  """Makes the margins of 128 channels zero."""
  zeros = jnp.zeros((image.margin, LANES), wide.dtype)
  wide[pl.ds(0, image.margin), :] = zeros
  wide[pl.ds(image.margin + image.pixels, image.margin), :] = zeros


def neighbours(image: Image) -> dict[int, jax.Array]:
  """For dx = -1 and 1: whether a pixel of a piece has a neighbour there."""
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
  """The convolution of a piece, (piece, 128) in float32.

  Args:
    image: how it lies.
    masks: of `neighbours`.
    wide: (`image.with_margins`), float32.
    taps: (9, 128), row by row.
    at: the first pixel of the piece.
    flipped: with the taps the other way round, as the gradient of its input.
  """
  rows = _rows(image, wide, at)
  sign = -1 if flipped else 1
  total = 0.0
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

  Args:
    image: as of `depthwise`, and so are masks, wide and at.
    masks: see there.
    wide: see there.
    grad: (piece, 128), of what it returned.
    grad_taps: (9, 128), which is added to.
    at: see there.
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
  """For dy = -1, 0, 1: the piece moved by dy rows, and 8 pixels around it."""
  above = image.margin - 8
  size = image.piece + 16
  around = wide[pl.ds(at, size + 2 * above), :]
  return {
    dy: around[above + dy * image.width : above + dy * image.width + size]
    for dy in (-1, 0, 1)
  }
