"""Mixtures: several data sets to train on as one, such as Rain13K."""

from collections.abc import Sequence

from mixdtp_jax.data.cache import PairCache
from mixdtp_jax.data.datasets.prepared import PreparedPairs
from mixdtp_jax.data.datasets.registry import open_split
from mixdtp_jax.recipe.knobs import Data


class Mixture:
  """The training pairs of several sets, one set after the other.

  Attributes:
    sizes: number of pairs of each set.
    weights: number of crops from each set in a round of sum(weights) crops.
  """

  def __init__(
    self,
    parts: Sequence[PreparedPairs],
    weights: Sequence[int],
    cache_mb: float = 0.0,
  ):
    """Combines opened sets.

    Args:
      parts: the sets.
      weights: the weight of each, at least 1.
      cache_mb: most MiB of decoded images to keep in memory.
    """
    self._cache = PairCache(cache_mb)
    self._parts = tuple(parts)
    self.sizes = tuple(map(len, parts))
    self.weights = tuple(weights)

  def __len__(self) -> int:
    """Returns the number of pairs of all sets."""
    return sum(self.sizes)

  def __getitem__(self, index: int) -> dict:
    """Returns the decoded pair, which is read-only; see `Pairs`."""
    return self._cache.get(index, self._decode)

  def _decode(self, index: int) -> dict:
    part, index = self._locate(index)
    return part[index]

  def shape(self, index: int) -> tuple[int, int]:
    """Returns (H, W) without decoding an image."""
    part, index = self._locate(index)
    return part.shape(index)

  def _locate(self, index: int) -> tuple[PreparedPairs, int]:
    for part, size in zip(self._parts, self.sizes, strict=True):
      if index < size:
        return part, index
      index -= size
    raise IndexError(f'no pair {index} after the last of {len(self)}')


def open_mixture(data: Data, crop: int) -> Mixture:
  """Opens the training pairs of config.data.

  Args:
    data: config.data.
    crop: smallest side that every image must have, in pixels.

  Raises:
    ValueError: see `registry.prepare`.
    FileNotFoundError: a set other than data.name is not prepared.
  """
  named = data.mixture or ((data.name, 1),)
  names = [name for name, _ in named]
  parts = [
    open_split(
      name,
      source=data.source if name == data.name else '',
      data_dir=data.data_dir,
      split='train',
      crop=crop,
    )
    for name in names
  ]
  return Mixture(parts, [weight for _, weight in named], data.cache_mb)
