"""The devices as a mesh, and how batches and parameters lie on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """All devices of all hosts (or those given) along one axis, 'data'.

  The axis is Auto: under JAX's default, Explicit, the reshapes of the
  attention are refused.
  """
  if devices is None:
    devices = jax.devices()
  return jax.make_mesh(
    (len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Arrays split along their first axis over the devices."""
  return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
  """Arrays of which every device has a copy."""
  return NamedSharding(mesh, PartitionSpec())


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
