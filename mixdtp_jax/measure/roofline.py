"""The best rates of this machine that JAX reaches: products and copies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mixdtp_jax.measure.timing import seconds

_SAMPLES = 20  # of each rate: other work may slow the machine at times
_SAMPLE_SECONDS = 0.02  # short calls are timed many at once
_MOST_CALLS = 200  # in one sample


class Roofline(NamedTuple):
  """Rates of the first device, several of each; the best one counts."""

  flops: dict[str, tuple[float, ...]]  # a second, by dtype, in matrix products
  bytes: tuple[float, ...]  # read and written a second, in place


def measure_roofline() -> Roofline:
  """Measures the rates, which takes a few seconds."""
  count = 2 ** (26 if _on_cpu() else 28)  # float32 numbers: beyond any cache
  # In place, because the system takes its time to hand over fresh memory.
  increase = jax.jit(lambda x: x + 1, donate_argnums=0)
  held = jnp.zeros(count)

  def copy():
    nonlocal held
    held = increase(held)
    return held

  products = {d: product_rates(d) for d in ('float32', 'bfloat16')}
  return Roofline(products, _rates(8 * count, copy))


def product_rates(dtype: str) -> tuple[float, ...]:
  """Returns samples of operations a second; a multiply-add is two."""
  side = 1024 if _on_cpu() else 8192
  matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
  multiply = jax.jit(jnp.matmul)
  return _rates(2 * side**3, lambda: multiply(matrix, matrix))


def _on_cpu() -> bool:
  return jax.devices()[0].platform == 'cpu'


def _rates(work: float, call: Callable[[], Any]) -> tuple[float, ...]:
  jax.block_until_ready(call())  # compiles
  once, _ = seconds(lambda: jax.block_until_ready(call()))
  calls = min(max(round(_SAMPLE_SECONDS / once), 1), _MOST_CALLS)

  def sample():
    for _ in range(calls):
      result = call()
    jax.block_until_ready(result)

  return tuple(calls * work / seconds(sample)[0] for _ in range(_SAMPLES))
