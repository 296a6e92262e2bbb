"""Decoded images in memory, so that a crop of them costs no decoding."""

import threading

from mixdtp_jax.data.pairs import Pairs


class CachedPairs:
  """Pairs that stay in memory once decoded, if they fit; a `folders.Pairs`.

  What came first stays. Training shows every image once an epoch, in an order
  that is new each time: to drop one image for another would gain nothing.
  """

  def __init__(self, pairs: Pairs, limit_mb: float):
    """Decodes nothing yet.

    Args:
      pairs: the images.
      limit_mb: MiB of decoded images to keep, at most; the others are decoded
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
    """Number of pairs."""
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict:
    """The decoded pair, not to be written to; see `Pairs`."""
    pair = self._kept.get(index)
    if pair is None:
      # Not under the lock, as threads decode at the same time. Two that want
      # the same image both decode it, which only costs time.
      pair = self._pairs[index]
      self._keep(index, pair)
    return pair

  def shape(self, index: int) -> tuple[int, int]:
    """(H, W), without decoding an image."""
    return self._pairs.shape(index)

  def _keep(self, index: int, pair: dict) -> None:
    size = sum(pair[s].nbytes for s in ('rainy', 'clean') if s in pair)
    with self._lock:
      if index not in self._kept and size <= self._free:
        self._kept[index] = pair
        self._free -= size
