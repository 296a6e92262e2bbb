"""The mesh of devices, and the layout of batches and parameters on it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Fewest rows of an image that devices may share. XLA (of JAX 0.10.2) splits the
# 3x3 convolution of 2 rows, an eighth of 16, wrongly: it gives other results
# without an error.
MIN_SHARED_ROWS = 32


def make_mesh(
  devices: Sequence[jax.Device] | None = None, *, space: int = 1
) -> Mesh:
  """Makes a mesh with axes 'data' and 'space'.

  `space` neighbours among the devices (None takes those of all hosts) share the
  rows of each image. The axes are Auto: JAX's default, Explicit, refuses the
  attention's reshapes. ValueError if `space` does not divide the devices.
  """
  if devices is None:
    devices = jax.devices()
  if space < 1 or len(devices) % space:
    raise ValueError(
      f'mesh_space = {space} does not divide the {len(devices)} devices'
    )
  return jax.make_mesh(
    (len(devices) // space, space),
    ('data', 'space'),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the layout of images: B split along 'data', H along 'space'."""
  return NamedSharding(mesh, PartitionSpec('data', 'space'))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the layout of arrays that every device holds in full."""
  return NamedSharding(mesh, PartitionSpec())


def traced_for(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
  """Wraps `function` so that it is traced with `mesh` as the abstract mesh.

  Pallas kernels read that mesh to split themselves, because XLA cannot split
  them: see ops/fused_feed_forward.py.
  """

  @functools.wraps(function)
  def traced(*args: Any, **kwargs: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args, **kwargs)

  return traced


def place(tree: Any, sharding: NamedSharding) -> Any:
  """Places arrays, the same on all hosts, on the devices of all hosts."""

  def to_global(x):
    if getattr(x, 'sharding', None) == sharding:
      return x
    # jax.device_put would compare the values between hosts every time.
    values = np.asarray(x)
    with jax.transfer_guard('allow'):  # JAX counts this one as implicit
      return jax.make_array_from_callback(
        values.shape, sharding, lambda index: values[index]
      )

  return jax.tree.map(to_global, tree)
