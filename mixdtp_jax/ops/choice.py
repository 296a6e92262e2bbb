"""The choice of kernels: XLA's own code, native code or Pallas kernels.

It is made once for a program, by `resolve`, where its devices are known, and is
the value of `kernels` while the program is traced. A function with several
forms takes the one of that value and, by `jax.lax.platform_dependent`, of the
platform.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mixdtp_jax.ops.cpu.native import registered

# 'xla': XLA's own code; 'cpu': with the native code of ops/cpu; 'tpu': with the
# kernels of ops/tpu. JAX traces a function again for another value.
kernels = jax.make_user_context('xla')


def resolve(wanted: str, devices: Sequence[jax.Device]) -> str:
  """Returns the kernels for all devices of a program: xla, cpu or tpu.

  `wanted` is the option kernels of a recipe; ValueError if the devices cannot
  run these. Native code serves one CPU device: XLA cannot split a function that
  it does not know over several.
  """
  platform, best = devices[0].platform, 'xla'
  if platform == 'tpu':
    best = 'tpu'
  elif wanted != 'xla' and platform == 'cpu' and len(devices) == 1:
    best = 'cpu' if registered() else 'xla'
  if wanted not in ('auto', 'xla', best):
    raise ValueError(
      f'kernels = {wanted}: the {len(devices)} devices of platform {platform} '
      'cannot run them; cpu needs one CPU device and a C++ compiler, tpu needs '
      'TPUs'
    )
  return best if wanted == 'auto' else wanted


def traced_with(chosen: str, function: Callable) -> Callable:
  """Wraps `function` so that it is traced with a value of `kernels`."""

  @functools.wraps(function)
  def traced(*args, **kwargs):
    with kernels(chosen):
      return function(*args, **kwargs)

  return traced


def usable(dtype: jnp.dtype) -> bool:
  """Returns whether the native code may compute images of this dtype."""
  return kernels.value == 'cpu' and dtype == jnp.float32


def by_platform(
  native: Callable,
  default: Callable,
  *arrays: jax.Array,
  numbers: int = 0,
  off_tpu: Callable | None = None,
) -> Any:
  """Computes a function of arrays in the form that suits the platform.

  `native` is the form for a CPU, if native code may compute the first array,
  and `off_tpu` that for a GPU, or for a CPU without native code; None takes
  `default`. `numbers` is the size of a kernel. Up to 300,000 numbers fit into a
  core's own cache; XLA is as fast as native code for larger ones.
  """
  forms = dict.fromkeys(('cpu', 'cuda', 'rocm'), off_tpu) if off_tpu else {}
  if numbers <= 300_000 and usable(arrays[0].dtype):
    forms['cpu'] = native
  return lax.platform_dependent(*arrays, default=default, **forms)
