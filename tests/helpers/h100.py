"""Programs that XLA compiles for an absent GPU."""

import importlib.util
import os

import jax
import pytest

from mixdtp_jax.tools.plan.targets import gpu_box

needs_cuda_plugin = pytest.mark.skipif(
  importlib.util.find_spec('jax_cuda13_plugin') is None
  or os.environ['JAX_PLATFORMS'] != 'cpu',
  reason="needs JAX's plugin for CUDA, which compiles for GPUs, on a CPU",
)


def compiled_text(function, *arguments) -> str:
  """Compiles a function for such arrays."""
  box = gpu_box('h100:1')
  here = jax.sharding.SingleDeviceSharding(box.devices[0])
  there = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), arguments
  )
  # A new function: what was traced with other parts in it is not found.
  lowered = jax.jit(lambda *a: function(*a)).lower(*there)
  return lowered.compile(box.compiler_options).as_text()
