"""The choice of kernels: native code for a CPU, or XLA's.

The other choices are made by `jax.lax.platform_dependent` where a function has
a form for each platform, and by model.fused_feed_forward on a TPU.
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from mixdtp_jax.ops.cpu.native import registered

_for_others = False


@contextlib.contextmanager
def for_other_devices() -> Iterator[None]:
  """Traces its body without native kernels, for a program of other devices."""
  global _for_others
  before, _for_others = _for_others, True
  try:
    yield
  finally:
    _for_others = before


def usable(dtype: jnp.dtype) -> bool:
  """Returns whether the kernels of ops/cpu may compute images of this dtype.

  They serve one CPU device in float32: XLA cannot split a function that it does
  not know over several devices.
  """
  return (
    not _for_others
    and dtype == jnp.float32
    and jax.default_backend() == 'cpu'
    and jax.device_count() == 1
    and registered()
  )
