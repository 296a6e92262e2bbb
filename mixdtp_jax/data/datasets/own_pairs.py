"""Your own pairs."""

from pathlib import Path

from mixdtp_jax.data import matching, pairs
from mixdtp_jax.data.datasets.builder import PairsBuilder


class OwnPairs(PairsBuilder, skip_registration=True):
  """Files of equal stems in SOURCE/{train,test}/{rainy,clean}."""

  name = 'pairs'

  def find_pairs(self, source: Path) -> dict[str, list[pairs.PairFiles]]:
    """See the base class and `matching.find_pairs`."""
    splits = ('train', 'test')
    if not all((source / split).is_dir() for split in splits):
      raise FileNotFoundError(
        f'{source} has {matching.content(source)}; expected train/ and test/, '
        'each with rainy/ and clean/ in it'
      )
    return {split: matching.find_pairs(source / split) for split in splits}
