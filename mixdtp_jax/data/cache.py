"""A cache of decoded pairs."""

import threading
from collections.abc import Callable


class PairCache:
  """Decoded pairs by index, as far as they fit into a limit of memory.

  Entries are never evicted: training reads every image once per epoch, in a new
  order each time, so replacing one would gain nothing.
  """

  def __init__(self, limit_mb: float):
    """Starts empty.

    Args:
      limit_mb: most MiB of decoded images to keep; 0 keeps none.
    """
    self._kept: dict[int, dict] = {}
    self._free = limit_mb * 2**20  # bytes
    self._lock = threading.Lock()

  def get(self, index: int, decode: Callable[[int], dict]) -> dict:
    """Returns the read-only pair of an index; decodes it if it is absent."""
    pair = self._kept.get(index)
    if pair is None:
      # Without the lock, because threads decode at the same time. Two threads
      # may decode the same image, which only costs time.
      pair = decode(index)
      self._keep(index, pair)
    return pair

  def _keep(self, index: int, pair: dict) -> None:
    size = sum(pair[s].nbytes for s in ('rainy', 'clean') if s in pair)
    with self._lock:
      if index not in self._kept and size <= self._free:
        self._kept[index] = pair
        self._free -= size
