"""Restoring of whole images, padded to the sizes that a network needs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mixdtp_jax.ops import choice
from mixdtp_jax.runtime.mesh import (
  MIN_SHARED_ROWS,
  batch_sharding,
  make_mesh,
  place,
  replicated,
  traced_for,
)

Apply = Callable[[Any, jax.Array], jax.Array]
Restore = Callable[[np.ndarray], jax.Array]


# At module level, so that JAX finds the compiled program again for the same
# `apply` with new parameters, as in the evaluations of a training run.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply_and_clamp(
  apply: Apply, mesh: jax.sharding.Mesh, params: Any, images: jax.Array
) -> jax.Array:
  if images.shape[1] >= MIN_SHARED_ROWS:
    # XLA also splits heights that are not a multiple of the devices.
    images = jax.lax.with_sharding_constraint(images, batch_sharding(mesh))
  restored = traced_for(mesh, apply)(params, images)
  restored = jnp.clip(restored.astype(jnp.float32), 0, 1)
  # Every host gets the whole batch, so that every host can score it.
  return jax.lax.with_sharding_constraint(restored, replicated(mesh))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _cut(images: jax.Array, batch: int, height: int, width: int) -> jax.Array:
  return images[:batch, :height, :width]


def make_restore(
  apply: Apply,
  params: Any,
  *,
  multiple: int,
  mesh: jax.sharding.Mesh | None = None,
  kernels: str = 'auto',
  batch_size: int = 1,
) -> Restore:
  """Makes a function that restores images of any size.

  Args:
    apply: a function of params and images (B, H, W, 3), float32, whose sides
      are multiples of `multiple`, to images of that shape. It is compiled once
      for each shape; pass the same function object again to reuse programs.
    params: any tree of arrays; an argument of the compiled program.
    multiple: pixels that height and width must be multiples of.
    mesh: the devices that share a batch, and along 'space' the rows of each
      image; None takes all devices, with whole images for each.
    kernels: the option of a recipe.
    batch_size: images of a program, or more if the devices do not divide it.

  Returns:
    A function of images (B, H, W, 3), float in [0, 1], to float32 images of
    that shape in [0, 1]; ValueError for another shape or an empty batch. All
    hosts of the mesh call it with the same images, and each gets the whole
    result, on one of its devices. To fill a program, the last image is
    repeated.
  """
  mesh = make_mesh() if mesh is None else mesh
  params = place(params, replicated(mesh))
  by_image = NamedSharding(mesh, PartitionSpec('data'))
  chosen = choice.resolve(kernels, list(mesh.devices.flat))
  at_once = batch_size + -batch_size % mesh.shape['data']

  def restore(images: np.ndarray) -> jax.Array:
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
      raise ValueError(
        f'images of shape {images.shape}: restore needs (B, H, W, 3)'
      )
    batch, height, width, _ = images.shape
    padded = place(pad(images, multiple, at_once), by_image)
    with choice.kernels(chosen):
      restored = _apply_and_clamp(apply, mesh, params, padded)
    return _cut(restored.addressable_data(0), batch, height, width)

  return restore


def pad(images: np.ndarray, multiple: int, at_once: int) -> np.ndarray:
  """Pads images (B, H, W, 3), no side empty.

  H and W become multiples of `multiple`, by reflection at the bottom and right;
  B one of `at_once`, by repeating the last image.
  """
  batch, height, width, _ = images.shape
  # NumPy reflects as often as necessary, and repeats a side of one pixel.
  sides = ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0))
  images = np.pad(images, sides, mode='reflect')
  rows = ((0, -batch % at_once), (0, 0), (0, 0), (0, 0))
  return np.pad(images, rows, mode='edge')
