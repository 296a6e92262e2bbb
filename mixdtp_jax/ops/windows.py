"""Parts of the network for windows of an image, in the form that is fast.

A window holds some pixels of an image and those around them: results have a
border less than it and need no padding. Pixels of a window that lie outside the
image are zero. `bounds` (4,) int32 are the first row, the row after the last,
the first column and the column after the last of the window that lie inside.
What is computed for pixels outside has no meaning, unless it is said to be
zero. Nothing here has a gradient: only restoration/ uses it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mixdtp_jax.ops import choice, dense
from mixdtp_jax.ops.cpu import native
from mixdtp_jax.ops.depthwise import shifted_sum
from mixdtp_jax.ops.feed_forward import feed_forward_inside

Pair = tuple[jax.Array, jax.Array]


def exists(bounds: jax.Array, x: jax.Array, trim: int = 0) -> jax.Array:
  """Returns 1 where a pixel lies in the image, else 0: (1, H, W, 1).

  `x` (B, H, W, C) gives the dtype, and has `trim` pixels less than the window
  on each side.
  """
  rows, columns = (trim + jnp.arange(size) for size in x.shape[1:3])
  top, bottom, left, right = bounds
  rows = (rows >= top) & (rows < bottom)
  columns = (columns >= left) & (columns < right)
  return (rows[:, None] & columns)[None, :, :, None].astype(x.dtype)


def conv3x3(
  x: jax.Array,
  kernel: jax.Array,
  *,
  bias: jax.Array | None = None,
  relu: bool = False,
  added: jax.Array | None = None,
  bounds: jax.Array | None = None,
  trim: int = 0,
) -> jax.Array:
  """Computes a 3x3 cross-correlation (B, H, W, D), and what often follows it.

  Args:
    x: (B, H + 2, W + 2, C).
    kernel: (3, 3, C, D).
    bias: (D,), is added.
    relu: whether negative numbers become 0.
    added: (B, H + 2n, W + 2n, D), whose middle is added; `relu` follows again.
    bounds: of the window; with them, the result is 0 outside the image.
    trim: pixels that the result has less than the window on each side.
  """

  def by_xla(x, kernel):
    x = dense.grouped_conv3x3(x, kernel, groups=1, inside=True)
    if bias is not None:
      x += bias.astype(x.dtype)
    after = jax.nn.relu if relu else lambda x: x
    x = after(x)
    if added is not None:
      x = after(x + middle(added, (added.shape[1] - x.shape[1]) // 2))
    return x if bounds is None else x * exists(bounds, x, trim)

  def on_cpu(x, kernel):
    empty = jnp.zeros(0, x.dtype)
    return native.call(
      'Conv3x3Inside',
      native.image(x, kernel.shape[3], less=2),
      x,
      kernel,
      empty if bias is None else bias,
      empty.reshape(0, 0, 0, 0) if added is None else added,
      jnp.zeros(4, jnp.int32) if bounds is None else bounds,
      relu=np.int64(relu),
      trim=np.int64(-1 if bounds is None else trim),
    )

  return choice.by_platform(on_cpu, by_xla, x, kernel, numbers=kernel.size)


def lstm(
  x: jax.Array,
  h: jax.Array | None,
  c: jax.Array | None,
  kernel: jax.Array,
  bias: jax.Array,
  bounds: jax.Array,
  trim: int,
) -> tuple[jax.Array, jax.Array]:
  """Computes a convolutional LSTM, as `models.refinement` has it.

  Args:
    x: (1, H + 2, W + 2, R).
    h: state, as `x`; None for zeros.
    c: state, (1, H, W, R) in float32; None for zeros.
    kernel: (3, 3, 2R, 4R) of x and h to the gates i, f, g, o; of R inputs if
      there is no h.
    bias: (4R,).
    bounds: of the window.
    trim: as of `conv3x3`.

  Returns:
    The new c, and the new h in the dtype of x, which is 0 outside the image.
  """

  def by_xla(x):
    images = x if h is None else jnp.concatenate([x, h], axis=-1)
    gates = dense.grouped_conv3x3(images, kernel, groups=1, inside=True)
    gates = dense.at_least_float32(gates + bias.astype(x.dtype))
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    new = jax.nn.sigmoid(i) * jnp.tanh(g)
    if c is not None:
      new += jax.nn.sigmoid(f) * c
    shown = (jax.nn.sigmoid(o) * jnp.tanh(new)).astype(x.dtype)
    return new, shown * exists(bounds, shown, trim)

  def on_cpu(x):
    result = native.image(x, x.shape[3], less=2)
    empty = jnp.zeros((0, 0, 0, 0), x.dtype)
    state = (empty if image is None else image for image in (h, c))
    arguments = x, *state, kernel, bias, bounds
    both = result, result
    return native.call('Lstm', both, *arguments, trim=np.int64(trim))

  return choice.by_platform(on_cpu, by_xla, x, numbers=kernel.size)


def middle(x: jax.Array, less: int) -> jax.Array:
  """Returns (B, H - 2n, W - 2n, C) of (B, H, W, C), without n border pixels."""
  return x[:, less : x.shape[1] - less, less : x.shape[2] - less]


def attention_sums(
  x: jax.Array, bounds: jax.Array, norm: Pair, q: Pair, k: Pair
) -> jax.Array:
  """Sums what attention needs to know of all pixels of the image.

  The window is (1, H + 2, W + 2, C). `norm` has scale and bias of the layer
  norm, (C,); `q` and `k` have the kernels of a 1x1, (C, C), and of a depthwise
  convolution, (3, 3, 1, C).

  Returns:
    (1, C * (C + 2)): the products of q and k, (C, C), the squares of q, (C,),
    and those of k, summed over the (H, W) pixels in the middle that exist.
  """

  def by_xla(x):
    normal = dense.layer_norm(x, *norm) * exists(bounds, x)
    images = (_depthwise(normal, *kernels) for kernels in (q, k))
    first, second = (image * exists(bounds, image, 1) for image in images)
    squares = (dense.sum_of_squares(image) for image in (first, second))
    gram = dense.gram(first, second).reshape(1, -1)
    return jnp.concatenate([gram, *squares], axis=1)

  def on_cpu(x):
    b, _, _, c = x.shape
    result = jax.ShapeDtypeStruct((b, c * (c + 2)), x.dtype)
    return native.call('AttentionSums', result, x, bounds, *norm, *q, *k)

  return choice.by_platform(on_cpu, by_xla, x, numbers=q[0].size)


def block(
  x: jax.Array,
  bounds: jax.Array,
  mix: jax.Array,
  norm1: Pair,
  v: Pair,
  norm2: Pair,
  feed_forward: tuple[jax.Array, jax.Array, jax.Array],
) -> jax.Array:
  """Applies a block with known attention: (1, H + 4, W + 4, C) to (1, H, W, C).

  `mix` (C, C) is attention and projection as one matrix. The layer norms and
  `v` are as in `attention_sums`, the last kernels as in `ops.feed_forward`.
  """

  def by_xla(x):
    # A bias of the layer norm must not replace the zeros around the image,
    # which are the depthwise convolution's padding.
    normal = dense.layer_norm(x, *norm1) * exists(bounds, x)
    mixed = dense.mix_channels(_depthwise(normal, *v), mix[None])
    x = middle(x, 1) + mixed
    normal = dense.layer_norm(x, *norm2) * exists(bounds, x, 1)
    return middle(x, 1) + feed_forward_inside(normal, *feed_forward)

  def on_cpu(x):
    result = native.image(x, x.shape[3], less=4)
    weights = *norm1, *v, *norm2, *feed_forward
    return native.call('Block', result, x, bounds, mix, *weights)

  return choice.by_platform(on_cpu, by_xla, x, numbers=feed_forward[0].size)


def _depthwise(x, pointwise, kernel):
  """Applies a 1x1 and then a depthwise convolution without padding."""
  x = dense.conv1x1(x, pointwise)

  def by_xla(x, kernel):
    return dense.grouped_conv3x3(x, kernel, groups=x.shape[-1], inside=True)

  on_cpu = functools.partial(native.depthwise, inside=True)
  return choice.by_platform(on_cpu, by_xla, x, kernel, off_tpu=shifted_sum)
