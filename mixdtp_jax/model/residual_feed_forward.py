"""A block's second half as one function, whose gradient keeps its input alone.

On TPUs it is a kernel, pallas_feed_forward.py; elsewhere, and where an image
is too large for that, it is what ops.py and depthwise.py make of it.
"""

import functools

import jax
from jax import lax
from jax.sharding import PartitionSpec

from mixdtp_jax.model import ops, pallas_feed_forward
from mixdtp_jax.model.depthwise import feed_forward
from mixdtp_jax.model.pallas_feed_forward import Arguments


@jax.custom_vjp
def residual_feed_forward(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  widen: jax.Array,
  depthwise: jax.Array,
  narrow: jax.Array,
) -> jax.Array:
  """x plus the gated feed-forward of its layer norm.

  For several devices it has to be traced by `mesh.traced_for`: the compiler
  cannot split a kernel, which therefore runs on each device's own images.

  Args:
    x: (B, H, W, C).
    scale: (C,), of the layer norm.
    bias: (C,), of the layer norm.
    widen: (C, 2D), the 1x1 kernel before.
    depthwise: (3, 3, 1, 2D).
    narrow: (D, C), the 1x1 kernel after.

  Returns:
    (B, H, W, C).
  """
  arguments = Arguments(x, scale, bias, widen, depthwise, narrow)
  if not _kernels_fit(arguments):
    return _plain(*arguments)
  kernel = _on_each_device(_kernel, images=(0,), sums=())
  return lax.platform_dependent(*arguments, tpu=kernel, default=_plain)


def _forward_rule(*arguments):
  return residual_feed_forward(*arguments), Arguments(*arguments)


def _backward_rule(arguments, g):
  if not _kernels_fit(arguments):
    return tuple(_plain_gradients(*arguments, g))
  kernel = _on_each_device(_kernel_gradients, images=(0, 6), sums=range(1, 6))
  return tuple(
    lax.platform_dependent(*arguments, g, tpu=kernel, default=_plain_gradients)
  )


residual_feed_forward.defvjp(_forward_rule, _backward_rule)


def _kernels_fit(arguments):
  rows_shared = jax.sharding.get_abstract_mesh().shape.get('space', 1) > 1
  x, hidden = arguments.x, arguments.narrow.shape[0]
  return not rows_shared and pallas_feed_forward.fits(x.shape, hidden)


def _plain(x, scale, bias, *kernels):
  return x + feed_forward(ops.layer_norm(x, scale, bias), *kernels)


def _plain_gradients(*arguments_and_g):
  *arguments, g = arguments_and_g
  return Arguments(*jax.vjp(_plain, *arguments)[1](g))


def _kernel(*arguments):
  return pallas_feed_forward.forward(Arguments(*arguments))


def _kernel_gradients(*arguments_and_g):
  *arguments, g = arguments_and_g
  return pallas_feed_forward.gradients(Arguments(*arguments), g)


def _on_each_device(function, *, images, sums):
  """The function of the part of a batch that each device of the mesh has.

  Args:
    function: of arrays, to an array or a tuple of them, the first of images.
    images: the numbers of the arguments that are split.
    sums: the numbers of the results that are summed over the devices.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return function
  split, whole = PartitionSpec('data'), PartitionSpec()

  @functools.wraps(function)
  def summed(*arguments):
    results = function(*arguments)
    if not sums:
      return results
    return type(results)(
      *(
        lax.psum(result, 'data') if index in sums else result
        for index, result in enumerate(results)
      )
    )

  def over_devices(*arguments):
    specs = tuple(
      split if index in images else whole for index in range(len(arguments))
    )
    out = Arguments(split, *(whole for _ in sums)) if sums else split
    return jax.shard_map(
      summed, in_specs=specs, out_specs=out, check_vma=False
    )(*arguments)

  return over_devices
