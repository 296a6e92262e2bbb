"""The networks as StableHLO programs of any image size, by jax.export."""

import jax
import jax.numpy as jnp
from jax import export

from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import final_image, make_network
from mixdtp_jax.ops import choice

PLATFORMS = ('cpu', 'cuda', 'tpu')


def stablehlo_program(cfg: AnyConfig, params: dict) -> bytes:
  """Makes a program that `jax.export.deserialize` reads, for PLATFORMS.

  It maps float32 images (batch, height, width, 3) in [0, 1] to the same. The
  parameters, padding, clamping and cropping are inside.

  Args:
    cfg: the network.
    params: its parameters, under 2 GB.
  """
  network, multiple = final_image(cfg), make_network(cfg).multiple

  def restore(rainy):
    _, height, width, _ = rainy.shape
    x = rainy
    for axis in (1, 2) if multiple > 1 else ():
      x = jnp.take(x, _mirrored(rainy.shape[axis], multiple), axis)
    x = jnp.clip(network(params, x), 0, 1)
    return x[:, :height, :width]

  shape = export.symbolic_shape('batch, height, width, 3')
  images = jax.ShapeDtypeStruct(shape, jnp.float32)
  with choice.kernels('xla'):
    program = export.export(jax.jit(restore), platforms=PLATFORMS)(images)
  return bytes(program.serialize())


def _mirrored(size, multiple: int) -> jax.Array:
  """Returns the pixels of an axis, reflected at its end up to a multiple."""
  period = jnp.maximum(2 * size - 2, 1)  # a single pixel is repeated
  place = jnp.arange(-(-size // multiple) * multiple) % period
  return jnp.minimum(place, period - place)
