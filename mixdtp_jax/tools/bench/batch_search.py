"""Finds the batch at which training is fastest."""

import dataclasses
from collections.abc import Callable

_LEAST_GAIN = 1.05  # in images a second, for which a batch is doubled again


@dataclasses.dataclass(frozen=True)
class Search:
  """Batches that were tried, each twice the one before.

  Attributes:
    rates: images a second by batch.
    ended_by: what ended the search: 'rate', which grew by less than 5 %;
      'memory', which was too small; or 'limit', the largest batch allowed.
  """

  rates: dict[int, float]
  ended_by: str

  @property
  def best(self) -> int:
    """The fastest batch."""
    return max(self.rates, key=self.rates.get)


def fastest_batch(rate: Callable[[int], float], most: int) -> Search:
  """Doubles the batch from 1 on while that gains at least 5 %.

  Args:
    rate: returns the images a second of a batch; raises MemoryError.
    most: largest batch to try.

  Raises:
    MemoryError: one image is too much.
    ValueError: `most` is below 1.
  """
  if most < 1:
    raise ValueError(f'--most {most}: needs at least 1')
  rates, batch = {}, 1
  while batch <= most:
    try:
      rates[batch] = rate(batch)
    except MemoryError:
      if not rates:
        raise
      return Search(rates, 'memory')
    if batch > 1 and rates[batch] < _LEAST_GAIN * rates[batch // 2]:
      return Search(rates, 'rate')
    batch *= 2
  return Search(rates, 'limit')
