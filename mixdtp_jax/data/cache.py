"""A cache of decoded images."""

import threading

from mixdtp_jax.data.pairs import Pairs


class CachedPairs:
  """Pairs that stay in memory once they are decoded, as far as they fit.

  Entries are never evicted: training reads every image once per epoch, in a new
  order each time, so replacing one would gain nothing.
  """

  def __init__(self, pairs: Pairs, limit_mb: float):
    """Starts with an empty cache.

    Args:
      pairs: the images.
      limit_mb: most MiB of decoded images to keep; other images are decoded
        each time. 0 keeps none.

    Raises:
      ValueError: the limit is negative.
    """
    if limit_mb < 0:
      raise ValueError(f'data.cache_mb = {limit_mb}: needs 0 or more')
    self._pairs = pairs
    self._kept: dict[int, dict] = {}
    self._free = limit_mb * 2**20  # bytes
    self._lock = threading.Lock()

  def __len__(self) -> int:
    """Returns the number of pairs."""
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict:
    """Returns the decoded pair, which is read-only; see `Pairs`."""
    pair = self._kept.get(index)
    if pair is None:
      # Without the lock, because threads decode at the same time. Two threads
      # may decode the same image, which only costs time.
      pair = self._pairs[index]
      self._keep(index, pair)
    return pair

  def shape(self, index: int) -> tuple[int, int]:
    """Returns (H, W) without decoding an image."""
    return self._pairs.shape(index)

  def _keep(self, index: int, pair: dict) -> None:
    size = sum(pair[s].nbytes for s in ('rainy', 'clean') if s in pair)
    with self._lock:
      if index not in self._kept and size <= self._free:
        self._kept[index] = pair
        self._free -= size
