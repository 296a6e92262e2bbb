"""How fast the machine is at best, as JAX finds it: products and copies."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mixdtp_jax.measure.timing import seconds

_ENOUGH = 0.02  # seconds that a timed run takes at least, of short calls many
_MANY = 200  # calls in a timed run, at most
_SAMPLES = 20  # of each rate: other work may slow the machine for some


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Rates of the first device, several of each, of which the best counts.

  Attributes:
    flops: by dtype, floating-point operations a second in the product of two
      large square matrices; a multiply-add is two.
    bytes: read and written a second, where an array is changed in place.
  """

  flops: dict[str, tuple[float, ...]]
  bytes: tuple[float, ...]

  def bound(self, dtype: str, flops: float, moved: float) -> float:
    """Seconds that so many operations and bytes take at the least."""
    return max(flops / max(self.flops[dtype]), moved / max(self.bytes))


def measure_roofline() -> Roofline:
  """Takes a few seconds."""
  on_cpu = jax.devices()[0].platform == 'cpu'
  side = 1024 if on_cpu else 8192
  flops = {
    dtype: _rates(2 * side**3, _product(dtype, side))
    for dtype in ('float32', 'bfloat16')
  }
  count = 2 ** (26 if on_cpu else 28)  # float32 numbers: beyond any cache
  return Roofline(flops, _rates(8 * count, _copy(count)))


def _product(dtype, side):
  matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
  multiply = jax.jit(jnp.matmul)
  return lambda: multiply(matrix, matrix)


def _copy(count):
  # In place: fresh memory costs the system's time to hand it over.
  increase = jax.jit(lambda x: x + 1, donate_argnums=0)
  held = jnp.zeros(count)

  def call():
    nonlocal held
    held = increase(held)
    return held

  return call


def _rates(work: float, call: Callable[[], Any]):
  return tuple(work / time for time in seconds_each(call, _SAMPLES))


def seconds_each(call: Callable[[], Any], repeats: int) -> tuple[float, ...]:
  """Seconds of a call, one a repeat; short calls are timed many at once.

  The first call, which compiles, does not count.

  Args:
    call: returns arrays, which may not be there yet.
    repeats: at least one.
  """
  jax.block_until_ready(call())
  once, _ = seconds(lambda: jax.block_until_ready(call()))
  count = min(max(round(_ENOUGH / once), 1), _MANY)

  def many():
    for _ in range(count):
      result = call()
    jax.block_until_ready(result)

  return tuple(seconds(many)[0] / count for _ in range(repeats))
