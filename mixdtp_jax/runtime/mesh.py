"""The devices as a mesh, and how batches and parameters lie on it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_Function = TypeVar('_Function', bound=Callable)

# Of an image whose rows devices share, at least. XLA (of JAX 0.10.2) splits the
# 3x3 convolution of 2 rows, an eighth of 16, wrongly: without any error its
# results are others.
MIN_SHARED_ROWS = 32


def make_mesh(
  devices: Sequence[jax.Device] | None = None, *, space: int = 1
) -> Mesh:
  """All devices of all hosts (or those given) along axes 'data' and 'space'.

  The axes are Auto: under JAX's default, Explicit, the reshapes of the
  attention are refused.

  Args:
    devices: in the order of the mesh; neighbours share an image.
    space: devices that share the rows of each image.

  Raises:
    ValueError: `space` does not divide the number of devices.
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
  """Images (B, H, W, C): B split along 'data', H along 'space'."""
  return NamedSharding(mesh, PartitionSpec('data', 'space'))


def replicated(mesh: Mesh) -> NamedSharding:
  """Arrays of which every device has a copy."""
  return NamedSharding(mesh, PartitionSpec())


def traced_for(mesh: Mesh, function: _Function) -> _Function:
  """The function, by its name, which JAX is to trace for devices of a mesh.

  Kernels that XLA cannot split by itself find there how images lie: see
  residual_feed_forward.py.
  """

  @functools.wraps(function)
  def traced(*args, **kwargs):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args, **kwargs)

  return traced


def place(tree: Any, sharding: NamedSharding) -> Any:
  """Lays arrays out over the devices of all hosts.

  Args:
    tree: of arrays whose values every host has in whole, and alike.
    sharding: how they shall lie.
  """

  def to_global(x):
    if getattr(x, 'sharding', None) == sharding:
      return x
    # jax.device_put would compare the values between hosts every time.
    values = np.asarray(x)
    return jax.make_array_from_callback(
      values.shape, sharding, lambda index: values[index]
    )

  return jax.tree.map(to_global, tree)
