"""A block's second half as one function, whose gradient keeps only its input.

On TPUs it is one kernel, tpu/feed_forward.py. On other platforms, and for
images too large for that kernel, it is made of dense.py and feed_forward.py.
"""

import jax
from jax import lax
from jax.sharding import PartitionSpec

from mixdtp_jax.ops import choice, dense
from mixdtp_jax.ops.feed_forward import feed_forward
from mixdtp_jax.ops.tpu import feed_forward as on_tpu
from mixdtp_jax.ops.tpu.feed_forward import Arguments

_IMAGES, _WHOLE = PartitionSpec('data'), PartitionSpec()
_SPLIT = Arguments._make([_IMAGES] + 5 * [_WHOLE])


@jax.custom_vjp
def residual_feed_forward(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  widen: jax.Array,
  depthwise: jax.Array,
  narrow: jax.Array,
) -> jax.Array:
  """Adds to x the gated feed-forward of its layer norm.

  For several devices, trace it inside `mesh.traced_for`: XLA cannot split a
  Pallas kernel, so each device runs it on its own images.

  Shapes are those of `tpu.feed_forward.Arguments`; the result is (B, H, W, C).
  """
  arguments = Arguments(x, scale, bias, widen, depthwise, narrow)
  if not _kernels_fit(arguments):
    return _plain(*arguments)
  return lax.platform_dependent(*arguments, tpu=_kernel, default=_plain)


def _backward_rule(residuals, g):
  arguments = Arguments(*residuals)
  if not _kernels_fit(arguments):
    return tuple(_plain_gradients(*arguments, g))
  return tuple(
    lax.platform_dependent(
      *arguments, g, tpu=_kernel_gradients, default=_plain_gradients
    )
  )


residual_feed_forward.defvjp(
  dense.keep_inputs(residual_feed_forward), _backward_rule
)


def _kernels_fit(arguments):
  rows_shared = jax.sharding.get_abstract_mesh().shape.get('space', 1) > 1
  x, hidden = arguments.x, arguments.narrow.shape[0]
  if rows_shared or choice.kernels.value != 'tpu':
    return False
  return on_tpu.fits(x.shape, x.dtype, hidden)


def _plain(x, scale, bias, *kernels):
  return x + feed_forward(dense.layer_norm(x, scale, bias), *kernels)


def _plain_gradients(*arguments_and_g):
  *arguments, g = arguments_and_g
  return Arguments(*jax.vjp(_plain, *arguments)[1](g))


def _kernel(*arguments):
  def own(*arguments):
    return on_tpu.forward(Arguments(*arguments))

  if _one_device():
    return own(*arguments)
  return jax.shard_map(
    own, in_specs=tuple(_SPLIT), out_specs=_IMAGES, check_vma=False
  )(*arguments)


def _kernel_gradients(*arguments_and_g):
  def own(*arguments_and_g):
    *arguments, g = arguments_and_g
    return on_tpu.gradients(Arguments(*arguments), g)

  def summed(*arguments_and_g):
    grad_x, *weights = own(*arguments_and_g)
    return Arguments(grad_x, *lax.psum(weights, 'data'))

  if _one_device():
    return own(*arguments_and_g)
  return jax.shard_map(
    summed, in_specs=(*_SPLIT, _IMAGES), out_specs=_SPLIT, check_vma=False
  )(*arguments_and_g)


def _one_device():
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.empty or mesh.size == 1
