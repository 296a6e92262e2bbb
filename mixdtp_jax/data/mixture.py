"""Mixtures: several data sets to train on as one, such as Rain13K."""

import threading
from collections.abc import Sequence

from mixdtp_jax.data.datasets.prepared import PreparedPairs
from mixdtp_jax.data.datasets.registry import open_split
from mixdtp_jax.recipe.knobs import Data


class Mixture:
  """The training pairs of several sets, one set after the other.

  Decoded pairs are kept as far as they fit into `cache_mb` MiB, and never
  replaced: training reads every image once per epoch, in a new order each time.
  `sizes` are the sets' numbers of pairs, `weights` those of their crops in each
  round of sum(weights) crops.
  """

  def __init__(
    self,
    parts: Sequence[PreparedPairs],
    weights: Sequence[int],
    cache_mb: float = 0.0,
  ):
    self._kept: dict[int, dict] = {}
    self._free = cache_mb * 2**20  # bytes
    self._lock = threading.Lock()
    self._parts = tuple(parts)
    self.sizes = tuple(map(len, parts))
    self.weights = tuple(weights)

  def __len__(self) -> int:
    return sum(self.sizes)

  def __getitem__(self, index: int) -> dict:
    pair = self._kept.get(index)
    if pair is None:
      # Without the lock, because threads decode at the same time. Two threads
      # may decode the same image, which only costs time.
      part, own = self._locate(index)
      pair = part[own]
      size = sum(pair[s].nbytes for s in ('rainy', 'clean') if s in pair)
      with self._lock:
        if index not in self._kept and size <= self._free:
          self._kept[index] = pair
          self._free -= size
    return pair

  def shape(self, index: int) -> tuple[int, int]:
    """Returns (H, W) without decoding an image."""
    part, own = self._locate(index)
    return part.shape(own)

  def _locate(self, index: int) -> tuple[PreparedPairs, int]:
    for part, size in zip(self._parts, self.sizes, strict=True):
      if index < size:
        return part, index
      index -= size
    raise IndexError(f'no pair {index} after the last of {len(self)}')


def open_mixture(data: Data, crop: int) -> Mixture:
  """Opens the training pairs; each image has sides of at least `crop` pixels.

  Errors are those of `registry.prepare`.
  """
  named = dict(data.mixture or ((data.name, 1),))
  # Others were prepared before, from sources that their copies name.
  others = None if data.source else ''
  parts = [
    open_split(
      name,
      source=data.source if name == data.name else others,
      data_dir=data.data_dir,
      split='train',
      crop=crop,
    )
    for name in named
  ]
  return Mixture(parts, list(named.values()), data.cache_mb)
