"""Times two things in turns, so that both meet the same machine.

Knows no framework: a thing is a function that returns when its work is done.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
  """Seconds of pairs of runs, one of each thing close after the other.

  A machine that is busier in one minute than in the next changes both runs of
  a pair, and hardly their ratio.

  Attributes:
    a: seconds of the first thing, one for each pair.
    b: seconds of the second.
  """

  a: tuple[float, ...]
  b: tuple[float, ...]

  @property
  def median_a(self) -> float:
    """Median seconds of the first thing."""
    return float(np.median(self.a))

  @property
  def median_b(self) -> float:
    """Median seconds of the second."""
    return float(np.median(self.b))

  @property
  def ratio(self) -> float:
    """Median of a / b over the pairs."""
    return float(np.median(np.divide(self.a, self.b)))

  @property
  def spread(self) -> tuple[float, float]:
    """First and third quartile of a / b over the pairs."""
    low, high = np.quantile(np.divide(self.a, self.b), (0.25, 0.75))
    return float(low), float(high)


def paired(a: Callable[[], Any], b: Callable[[], Any], repeats: int) -> Timing:
  """Runs two functions in the order A B B A A B ..., so that neither is first.

  An untimed run precedes each timed one, so that a function does not pay for
  caches or pages that the other evicted: a step that took 2.4 s after itself
  took 4.4 s after another's 3.6 GiB.

  Args:
    a: returns when its work is done (not when it is queued).
    b: likewise.
    repeats: number of pairs, at least one.

  Raises:
    ValueError: there are no pairs.
  """
  if repeats < 1:
    raise ValueError(f'repeats = {repeats}: needs at least 1')
  pairs = []
  for number in range(repeats):
    if number % 2:
      second = _second_run(b)
      pairs.append((_second_run(a), second))
    else:
      pairs.append((_second_run(a), _second_run(b)))
  return Timing(*zip(*pairs, strict=True))


def _second_run(run: Callable[[], Any]) -> float:
  run()
  return seconds(run)[0]


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
  """Runs a function once; returns its seconds, and what it returned."""
  start = time.perf_counter()
  result = run()
  return time.perf_counter() - start, result
