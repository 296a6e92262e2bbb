"""Times functions that return when their work is done."""

import time
from collections.abc import Callable
from typing import Any


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
  """Runs a function once; returns its seconds, and what it returned."""
  start = time.perf_counter()
  result = run()
  return time.perf_counter() - start, result


def paired(
  a: Callable[[], Any], b: Callable[[], Any], repeats: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns the seconds of A and of B, which run in the order A B B A A B ....

  A machine that is busier in one minute than in the next changes both runs of a
  pair, and hardly their ratio. An untimed run precedes each timed one, so that
  a function does not pay for caches or pages that the other evicted.
  """
  of_a: list[float] = []
  of_b: list[float] = []
  for number in range(repeats):
    pair = [(a, of_a), (b, of_b)]
    for run, times in reversed(pair) if number % 2 else pair:
      run()
      times.append(seconds(run)[0])
  return tuple(of_a), tuple(of_b)
