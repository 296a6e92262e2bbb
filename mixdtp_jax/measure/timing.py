"""Times of two things that take turns, so that both meet the same machine.

Knows no framework: a thunk does its work and returns when the work is done.
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
    a: seconds of the first thing, one a pair.
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
    return float(np.median(self._ratios))

  @property
  def spread(self) -> tuple[float, float]:
    """First and third quartile of a / b over the pairs."""
    low, high = np.quantile(self._ratios, (0.25, 0.75))
    return float(low), float(high)

  @property
  def _ratios(self):
    return np.divide(self.a, self.b)


def paired(a: Callable[[], Any], b: Callable[[], Any], repeats: int) -> Timing:
  """Runs two thunks in the order A B B A A B ..., so that neither goes first.

  Before each timed run comes one that is not timed. What the other left behind,
  in caches and in what the system has to do to find memory, is not its own: a
  step that took 2.4 s after itself took 4.4 s after another's 3.6 GiB.

  Args:
    a: returns when its work is done (not when it is queued).
    b: the same.
    repeats: pairs, at least one.

  Raises:
    ValueError: there are no pairs.
  """
  if repeats < 1:
    raise ValueError(f'repeats = {repeats}: needs at least 1')
  pairs = []
  for number in range(repeats):
    if number % 2:
      second = _settled(b)
      pairs.append((_settled(a), second))
    else:
      pairs.append((_settled(a), _settled(b)))
  return Timing(*zip(*pairs, strict=True))


def _settled(thunk):
  thunk()
  return seconds(thunk)[0]


def seconds(thunk: Callable[[], Any]) -> tuple[float, Any]:
  """Runs a thunk once: its time in seconds, and what it returned."""
  start = time.perf_counter()
  result = thunk()
  return time.perf_counter() - start, result
