"""The parts of a network as functions of one piece of an image.

A piece is a window (1, h, w, C) of a feature map: a core, and around it a halo
that the convolutions need. Arguments are always: parameters, bounds (see
ops/windows.py), what is alike for all pieces, windows. Results equal those of
models/: tests/restoration/test_engine.py compares them.
"""

import jax
import jax.numpy as jnp

from mixdtp_jax.models.shapes import RESIDUAL_BLOCKS
from mixdtp_jax.ops import dense, resizing, windows

# Pixels of halo that each function takes from its window.
SUMS_HALO = 1
BLOCK_HALO = 2
CONV_HALO = 1
DOWN_HALO = 2  # of an even number of pixels: they become half as many
DETAIL_HALO = 8  # 6 are needed, in multiples of 4
REFINE_HALO, C_HALO, H_HALO = 13, 11, 12  # of images and state


def attention_sums(params: dict, bounds: jax.Array, x: jax.Array) -> jax.Array:
  """Sums of a piece, as `ops.windows.attention_sums`."""
  return windows.attention_sums(x, bounds, **params)


def block(
  params: dict, bounds: jax.Array, mix: jax.Array, x: jax.Array
) -> jax.Array:
  """Applies a transformer block, as `ops.windows.block`."""
  return windows.block(x, bounds, mix, **params)


def embed(
  params: dict, bounds: jax.Array, image: jax.Array, *, dtype: str
) -> jax.Array:
  """Embeds an image: (1, h + 2, w + 2, 3) to (1, h, w, C)."""
  return windows.conv3x3(image, params['kernel']).astype(dtype)


def detail_dilation(
  params: dict, bounds: jax.Array, image: jax.Array, *, dtype: str
) -> jax.Array:
  """Embeds without fine detail: (1, h + 16, w + 16, 3) to (1, h, w, C)."""
  # One pixel more around it, whose convolution is of no use.
  padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
  zoomed = windows.conv3x3(padded, params['zoom']['kernel'], relu=True)
  half = resizing.bilinear_half(zoomed)
  quarter = _clamped(resizing.bilinear_half(half), bounds // 4)
  detail = _clamped(half - resizing.bilinear_double(quarter), bounds // 2)
  x = image - resizing.bilinear_double(detail)
  x = windows.middle(x * windows.exists(bounds, x), DETAIL_HALO - CONV_HALO)
  return windows.conv3x3(x, params['embed']['kernel']).astype(dtype)


def _clamped(x, bounds):
  """Repeats the image's border outside of it, as `bilinear_double` does."""
  top, bottom, left, right = bounds
  rows, columns = (jnp.arange(size) for size in x.shape[1:3])
  x = jnp.take(x, jnp.clip(rows, top, bottom - 1), axis=1)
  return jnp.take(x, jnp.clip(columns, left, right - 1), axis=2)


def down(params: dict, bounds: jax.Array, x: jax.Array) -> jax.Array:
  """Halves the size: (1, 2h + 4, 2w + 4, C) to (1, h, w, 2C)."""
  x = windows.conv3x3(windows.middle(x, 1), params['kernel'])
  return resizing.pixel_unshuffle(x)


def _up(params, x):
  """Doubles the size: (1, h + 2, w + 2, C) to (1, 2h, 2w, C/2)."""
  return resizing.pixel_shuffle(windows.conv3x3(x, params['kernel']))


def up_add(
  params: dict, bounds: jax.Array, x: jax.Array, coarse: jax.Array
) -> jax.Array:
  """Adds `coarse`, doubled, to (1, 2h, 2w, C/2)."""
  return x + _up(params, coarse)


def up_join(
  params: dict, bounds: jax.Array, skip: jax.Array, coarse: jax.Array
) -> jax.Array:
  """Joins `coarse`, doubled, with the encoder's (1, 2h, 2w, C/2).

  The result has those channels, or all C if there is no kernel 'reduce'.
  """
  x = jnp.concatenate([_up(params['up'], coarse), skip], axis=-1)
  if 'reduce' not in params:
    return x
  return dense.conv1x1(x, params['reduce']['kernel'])


def to_image(
  params: dict, bounds: jax.Array, x: jax.Array, rainy: jax.Array | None = None
) -> jax.Array:
  """Predicts an image (1, h, w, 3), or what is added to the rainy one.

  The features are (1, h + 2, w + 2, C).
  """
  image = windows.conv3x3(dense.at_least_float32(x), params['kernel'])
  return image if rainy is None else image + rainy


def refine(
  params: dict,
  bounds: jax.Array,
  rainy: jax.Array,
  image: jax.Array,
  c: jax.Array | None = None,
  h: jax.Array | None = None,
  *,
  dtype: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Takes a step of the refinement, as `models.refinement` does.

  `rainy` and `image` are (1, h + 26, w + 26, 3). The state of the last step is
  c, (1, h + 22, w + 22, R), and h, (1, h + 24, w + 24, R); None before the
  first. `bounds` are those of `rainy`. Returns image, c and h, (1, h, w, ...).
  """

  def conv(name, x, **how):
    kernel, bias = params[name]['kernel'], params[name]['bias']
    return windows.conv3x3(x, kernel, bias=bias, **how)

  def inside(trim):
    return {'bounds': bounds, 'trim': trim, 'relu': True}

  x = jnp.concatenate([rainy, image], axis=-1).astype(dtype)
  x = conv('conv_in', x, **inside(1))
  kernel, bias = params['gates']['kernel'], params['gates']['bias']
  if h is None:
    kernel = kernel[:, :, : x.shape[-1]]
  c, h = windows.lstm(x, h, c, kernel, bias, bounds, trim=2)
  x = h
  for number in range(1, RESIDUAL_BLOCKS + 1):
    y = conv(f'residual{number}_1', x, **inside(2 * number + 1))
    x = conv(f'residual{number}_2', y, added=x, **inside(2 * number + 2))
  image = conv('conv_out', dense.at_least_float32(x), added=rainy)
  return image, windows.middle(c, C_HALO), windows.middle(h, C_HALO)
