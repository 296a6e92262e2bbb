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
  pairs = []
  for number in range(repeats):
    if number % 2:
      second = _second_run(b)
      pairs.append((_second_run(a), second))
    else:
      pairs.append((_second_run(a), _second_run(b)))
  of_a, of_b = zip(*pairs, strict=True)
  return of_a, of_b


def _second_run(run: Callable[[], Any]) -> float:
  run()
  return seconds(run)[0]
