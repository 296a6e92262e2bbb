"""Whole images of any size through a network that needs multiples of some."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mixdtp_jax.runtime.mesh import (
  MIN_SHARED_ROWS,
  batch_sharding,
  make_mesh,
  place,
  replicated,
  traced_for,
)

Apply = Callable[[Any, jax.Array], jax.Array]
Restore = Callable[[np.ndarray], np.ndarray]


# At module level, so that a caller who returns with new parameters and the
# same `apply` (the evaluations of a training run) finds it compiled.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply_and_clamp(
  apply: Apply, mesh: jax.sharding.Mesh, params: Any, images: jax.Array
) -> jax.Array:
  if images.shape[1] >= MIN_SHARED_ROWS:
    # Here the compiler splits heights that the devices do not divide, too.
    images = jax.lax.with_sharding_constraint(images, batch_sharding(mesh))
  restored = traced_for(mesh, apply)(params, images)
  restored = jnp.clip(restored.astype(jnp.float32), 0, 1)
  # Every host gets the whole batch, and so every host can score it.
  return jax.lax.with_sharding_constraint(restored, replicated(mesh))


def make_restore(
  apply: Apply,
  params: Any,
  *,
  multiple: int,
  mesh: jax.sharding.Mesh | None = None,
) -> Restore:
  """A function from rainy images to restored ones, of any size.

  Args:
    apply: (params, images (B, H, W, 3) float32 with sides that are multiples
      of `multiple`) -> images of that shape. It is compiled once for each
      shape; pass the same function object again to reuse what is compiled.
    params: any tree of arrays; an argument of the compiled code.
    multiple: what `apply` needs, in pixels; 1 for any size.
    mesh: the devices that share a batch, and along 'space' the rows of each
      image; None takes all, each for whole images.

  Returns:
    restore(images (B, H, W, 3) float in [0, 1]) -> float32 of that shape in
    [0, 1]. All hosts of the mesh call it with the same images, and each gets
    the whole result. The bottom and right are reflected up to `multiple` and
    cut off again; a batch that the devices do not divide repeats its last
    image. It raises ValueError for another shape or an empty batch.
  """
  mesh = make_mesh() if mesh is None else mesh
  params = place(params, replicated(mesh))
  by_image = NamedSharding(mesh, PartitionSpec('data'))

  def restore(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
      raise ValueError(
        f'images of shape {images.shape}: restore needs (B, H, W, 3)'
      )
    batch, height, width, _ = images.shape
    padded = place(pad(images, multiple, mesh.shape['data']), by_image)
    restored = _apply_and_clamp(apply, mesh, params, padded)
    return np.asarray(restored)[:batch, :height, :width]

  return restore


def pad(images: np.ndarray, multiple: int, num_devices: int) -> np.ndarray:
  """Fills batch, height and width up to what network and devices divide.

  Args:
    images: (B, H, W, 3), no side empty.
    multiple: H and W become multiples of it, reflected at the bottom and right.
    num_devices: B becomes a multiple of it, the last image repeated.
  """
  batch, height, width, _ = images.shape
  # numpy reflects as often as it takes, and repeats a side of one pixel.
  sides = ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0))
  images = np.pad(images, sides, mode='reflect')
  rows = ((0, -batch % num_devices), (0, 0), (0, 0), (0, 0))
  return np.pad(images, rows, mode='edge')
