"""Halving and doubling of images, by pixel shuffle and bilinear."""

import jax
import jax.numpy as jnp
from jax import lax


def pixel_unshuffle(x: jax.Array) -> jax.Array:
  """Moves 2x2 pixels into channels: (B, H, W, C) to (B, H/2, W/2, 4C).

  The channel order is PyTorch's, channel * 4 + 2 * row + column, so that
  published weights fit.
  """
  b, h, w, c = x.shape
  x = x.reshape(b, h // 2, 2, w // 2, 2, c)
  return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, 4 * c)


def pixel_shuffle(x: jax.Array) -> jax.Array:
  """Inverts `pixel_unshuffle`: (B, H, W, 4C) to (B, 2H, 2W, C)."""
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
