"""Your own clean photographs, for rain that is drawn while training."""

from pathlib import Path

from mixdtp_jax.data import matching, pairs
from mixdtp_jax.data.datasets.builder import PairsBuilder


class Synthetic(PairsBuilder, skip_registration=True):
  """Clean photographs in SOURCE, all for training."""

  name = 'synthetic'
  sides = ('clean',)

  def find_pairs(self, source: Path) -> dict[str, list[pairs.PairFiles]]:
    """See the base class."""
    files = matching.by_stem(source)
    if not files:
      raise FileNotFoundError(f'{source} is empty; expected photographs in it')
    return {
      'train': [pairs.PairFiles(n, None, path) for n, path in files.items()]
    }
