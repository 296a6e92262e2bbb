"""The parts of a network as functions of one piece of an image.

A piece is a window (1, h, w, C) of a feature map: a core, and around it a halo
that the convolutions need. Windows of every image have the same shape, so these
functions are compiled for no image in particular. What lies outside the image
is zero in a window; `bounds` (4,) int32 are the first row, the row after the
last, the first column and the column after the last that exist in it. Values
computed for pixels outside the image have no meaning.

Results equal those of models/: tests/restoration/test_engine.py compares them.
"""

import jax
import jax.numpy as jnp

from mixdtp_jax.models.layers import to_compute
from mixdtp_jax.models.refinement import RESIDUAL_BLOCKS
from mixdtp_jax.ops import dense, resizing
from mixdtp_jax.ops.depthwise import depthwise_inside
from mixdtp_jax.ops.feed_forward import feed_forward_inside

# Pixels of halo that each function takes from its window.
SUMS_HALO = 1
BLOCK_HALO = 2
CONV_HALO = 1
DOWN_HALO = 2  # of an even number of pixels: they become half as many
DETAIL_HALO = 8  # 6 are needed, in multiples of 4
STEP_HALO = 13  # of one step of the refinement; less for its state:
C_MARGIN, H_MARGIN = 2, 1


def exists(bounds: jax.Array, x: jax.Array, trim: int = 0) -> jax.Array:
  """Returns (1, h, w, 1): 1 where a pixel lies in the image, else 0.

  Args:
    bounds: of the window.
    x: (1, h, w, C), whose dtype the result has.
    trim: pixels that `x` has less than the window on each side.
  """
  rows, columns = (trim + jnp.arange(size) for size in x.shape[1:3])
  top, bottom, left, right = bounds
  rows = (rows >= top) & (rows < bottom)
  columns = (columns >= left) & (columns < right)
  return (rows[:, None] & columns)[None, :, :, None].astype(x.dtype)


def attention_sums(
  params: dict, bounds: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Sums what a block's attention needs to know of all pixels of a core.

  Returns:
    The products of q and k, (1, C, C), and the squares of q and of k, (1, C).
  """
  norm = _norm(params['norm1'], bounds, x)
  q, k = (_projected(norm, *params[name]) for name in 'qk')
  inside = exists(bounds, q, trim=1)
  q, k = q * inside, k * inside
  squares = dense.sum_of_squares(q), dense.sum_of_squares(k)
  return dense.gram(q, k), *squares


def block(
  params: dict, bounds: jax.Array, mix: jax.Array, x: jax.Array
) -> jax.Array:
  """Applies a transformer block whose attention is known.

  Args:
    params: of the block.
    bounds: of the window.
    mix: (C, C), attention and projection as one matrix.
    x: (1, h + 4, w + 4, C).

  Returns:
    (1, h, w, C).
  """
  norm = _norm(params['norm1'], bounds, x)
  value = _projected(norm, *params['v'])
  x = x[:, 1:-1, 1:-1] + dense.mix_channels(value, mix[None])
  norm = _norm(params['norm2'], bounds, x, trim=1)
  return x[:, 1:-1, 1:-1] + feed_forward_inside(norm, *params['feed_forward'])


def _projected(x, pointwise, depthwise):
  return depthwise_inside(dense.conv1x1(x, pointwise), depthwise)


def _norm(params, bounds, x, trim=0):
  # The depthwise convolution's zeros lie outside the image; a layer norm's
  # bias would take their place.
  return dense.layer_norm(x, **params) * exists(bounds, x, trim)


def embed(
  params: dict, bounds: jax.Array, image: jax.Array, *, dtype: str
) -> jax.Array:
  """Embeds an image: (1, h + 2, w + 2, 3) to (1, h, w, C)."""
  del bounds
  return to_compute(dense.conv3x3_inside(image, params['kernel']), dtype)


def detail_dilation(
  params: dict, bounds: jax.Array, image: jax.Array, *, dtype: str
) -> jax.Array:
  """Embeds without fine detail: (1, h + 16, w + 16, 3) to (1, h, w, C)."""
  # One pixel more around it, whose convolution is of no use.
  padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
  zoomed = jax.nn.relu(dense.conv3x3_inside(padded, params['zoom']['kernel']))
  half = resizing.bilinear_half(zoomed)
  quarter = _clamped(resizing.bilinear_half(half), bounds // 4)
  detail = _clamped(half - resizing.bilinear_double(quarter), bounds // 2)
  x = (image - resizing.bilinear_double(detail)) * exists(bounds, image)
  trim = DETAIL_HALO - CONV_HALO
  x = dense.conv3x3_inside(
    x[:, trim:-trim, trim:-trim], params['embed']['kernel']
  )
  return to_compute(x, dtype)


def _clamped(x, bounds):
  """Repeats the image's border outside of it, as `bilinear_double` does."""
  top, bottom, left, right = bounds
  rows, columns = (jnp.arange(size) for size in x.shape[1:3])
  x = jnp.take(x, jnp.clip(rows, top, bottom - 1), axis=1)
  return jnp.take(x, jnp.clip(columns, left, right - 1), axis=2)


def down(params: dict, bounds: jax.Array, x: jax.Array) -> jax.Array:
  """Halves the size: (1, 2h + 4, 2w + 4, C) to (1, h, w, 2C)."""
  del bounds
  x = dense.conv3x3_inside(x[:, 1:-1, 1:-1], params['kernel'])
  return resizing.pixel_unshuffle(x)


def up(params: dict, bounds: jax.Array, x: jax.Array) -> jax.Array:
  """Doubles the size: (1, h + 2, w + 2, C) to (1, 2h, 2w, C/2)."""
  del bounds
  x = dense.conv3x3_inside(x, params['kernel'])
  return resizing.pixel_shuffle(x)


def up_add(
  params: dict, bounds: jax.Array, x: jax.Array, coarse: jax.Array
) -> jax.Array:
  """Adds `up` of `coarse` to (1, 2h, 2w, C/2)."""
  return x + up(params, bounds, coarse)


def up_join(
  params: dict, bounds: jax.Array, skip: jax.Array, coarse: jax.Array
) -> jax.Array:
  """Joins `up` of `coarse` with the encoder's (1, 2h, 2w, C/2).

  The result has those channels, or all C where there is no kernel 'reduce'.
  """
  x = jnp.concatenate([up(params['up'], bounds, coarse), skip], axis=-1)
  if 'reduce' not in params:
    return x
  return dense.conv1x1(x, params['reduce']['kernel'])


def to_image(params: dict, bounds: jax.Array, x: jax.Array) -> jax.Array:
  """Predicts an image: (1, h + 2, w + 2, C) to (1, h, w, 3)."""
  del bounds
  return dense.conv3x3_inside(dense.at_least_float32(x), params['kernel'])


def to_residual(
  params: dict, bounds: jax.Array, x: jax.Array, rainy: jax.Array
) -> jax.Array:
  """Predicts what is added to the rainy image (1, h, w, 3)."""
  return to_image(params, bounds, x) + rainy


def refine(
  params: dict,
  bounds: jax.Array,
  rainy: jax.Array,
  image: jax.Array,
  c: jax.Array | None = None,
  h: jax.Array | None = None,
  *,
  steps: int,
  last: bool,
  dtype: str,
) -> tuple[jax.Array, ...]:
  """Takes some steps of the refinement, as `models.refinement` does.

  Args:
    params: of a step.
    bounds: of the rainy image's window.
    rainy: (1, h + 2n, w + 2n, 3) with n = `STEP_HALO` * steps.
    image: the same.
    c: state of the last step, (1, h + 2m, w + 2m, R) with m = n -
      `C_MARGIN`; None before the first step.
    h: the same with m = n - `H_MARGIN`.
    steps: at least 1.
    last: there are no steps after these.
    dtype: of the convolutions.

  Returns:
    The image, and unless these are the last steps c and h, each (1, h, w, ...).
  """
  for step in range(steps):
    trim = STEP_HALO * step
    images = _trimmed(rainy, trim), image
    image, new_c, new_h = _step(params, bounds, trim, *images, c, h, dtype)
    # What the next step takes of its surroundings.
    c = _trimmed(new_c, STEP_HALO)
    h = _trimmed(new_h, STEP_HALO - C_MARGIN + H_MARGIN)
  if last:
    return (image,)
  new_c, new_h = (_trimmed(x, STEP_HALO - C_MARGIN) for x in (new_c, new_h))
  return image, new_c, new_h


def _step(params, bounds, trim, rainy, image, c, h, dtype):
  """One step; images have `trim` pixels less than the window on each side."""

  def conv(name, x):
    kernel = params[name]['kernel'][:, :, : x.shape[-1]]
    x = dense.conv3x3_inside(x, kernel)
    return x + params[name]['bias'].astype(x.dtype)

  def inside(x, less):
    return x * exists(bounds, x, trim + less)

  x = to_compute(jnp.concatenate([rainy, image], axis=-1), dtype)
  x = inside(jax.nn.relu(conv('conv_in', inside(x, 0))), 1)
  # Without a state its half of the kernel would multiply zeros.
  gates = conv('gates', x if h is None else jnp.concatenate([x, h], axis=-1))
  i, f, g, o = jnp.split(dense.at_least_float32(gates), 4, axis=-1)
  new = jax.nn.sigmoid(i) * jnp.tanh(g)
  c = new if c is None else jax.nn.sigmoid(f) * c + new
  h = inside(to_compute(jax.nn.sigmoid(o) * jnp.tanh(c), dtype), 2)
  x = h
  for number in range(1, RESIDUAL_BLOCKS + 1):
    less = 2 * number + 1
    y = inside(jax.nn.relu(conv(f'residual{number}_1', x)), less)
    y = jax.nn.relu(conv(f'residual{number}_2', y))
    x = inside(jax.nn.relu(y + _trimmed(x, 2)), less + 1)
  image = conv('conv_out', dense.at_least_float32(x))
  return image + _trimmed(rainy, STEP_HALO), c, h


def _trimmed(x, less):
  return x[:, less : x.shape[1] - less, less : x.shape[2] - less]
