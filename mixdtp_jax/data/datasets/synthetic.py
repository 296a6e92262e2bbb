"""One's own clean photographs, for rain that is drawn while training."""

from pathlib import Path

from mixdtp_jax.data import folders
from mixdtp_jax.data.datasets.base import PairsBuilder


class Synthetic(PairsBuilder, skip_registration=True):
  """SOURCE/*.png or .jpg, clean photographs, all for training."""

  name = 'synthetic'
  sides = ('clean',)

  def find_pairs(self, source: Path) -> dict[str, list[folders.PairFiles]]:
    """See the base class."""
    files = folders.by_stem(source)
    if not files:
      raise FileNotFoundError(f'{source} is empty; expected photographs in it')
    return {
      'train': [folders.PairFiles(n, None, path) for n, path in files.items()]
    }
