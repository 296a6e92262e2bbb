"""Finds the largest batch that fits, with few compilations."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from mixdtp_jax.tools.plan.step import StepPlan


class Search(NamedTuple):
  """What a search found."""

  best: StepPlan | None  # of the largest batch that fits
  tried: list[StepPlan]  # from the smallest batch to the largest


def largest_batch(
  plan: Callable[[int], StepPlan],
  unit: int,
  *,
  known: StepPlan | None = None,
  start: int = 1,
  compiles: int = 6,
) -> Search:
  """Searches the largest batch whose step fits.

  Memory grows with the batch nearly along a line. What the line through two
  plans predicts is compiled and gives the next line, until the answer is known
  to one unit or to a sixteenth.

  Args:
    plan: returns the plan of a batch size.
    unit: number that divides the batch size.
    known: a plan to start from, if there is one.
    start: the first batch otherwise, in units.
    compiles: largest number of new plans; the answer may then be too small.
  """
  plans = {} if known is None else {known.batch_size // unit: known}
  for _ in range(compiles):
    if (units := next_to_try(plans) if plans else start) is None:
      break
    plans[units] = plan(units * unit)
  tried = [plans[units] for units in sorted(plans)]
  fitting = [found for found in tried if found.fits]
  return Search(fitting[-1] if fitting else None, tried)


def next_to_try(plans: Mapping[int, StepPlan]) -> int | None:
  """Returns the batch to plan next, in units; None if enough is known.

  `plans` has at least one, by batch in units.
  """
  low = max((n for n, found in plans.items() if found.fits), default=0)
  high = min((n for n, found in plans.items() if not found.fits), default=None)
  if high is not None and high - low <= max(1, low // 16):
    return None
  guess = _crossing(plans)
  if guess is None:
    guess = high // 2 if high and not low else 2 * low
  guess = max(guess, low + 1)
  # A line through two small batches leads too far to be trusted.
  return min(guess, 8 * max(low, 1) if high is None else high - 1)


def _crossing(plans: Mapping[int, StepPlan]) -> int | None:
  """Returns the last batch that fits, by a line through the nearest plans."""
  excess = {
    n: found.needed - found.available
    for n, found in plans.items()
    if found.needed is not None
  }
  if len(excess) == 1:
    # No images would need the state alone.
    for found in plans.values():
      if (memory := found.memory) is not None:
        excess[0] = memory.arguments + memory.other - found.available
  if len(excess) < 2:
    return None
  one, two = sorted(sorted(excess, key=lambda n: abs(excess[n]))[:2])
  slope = (excess[two] - excess[one]) / (two - one)
  return math.floor(one - excess[one] / slope) if slope > 0 else None
