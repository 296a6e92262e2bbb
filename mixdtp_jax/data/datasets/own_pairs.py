"""A folder of one's own pairs."""

from pathlib import Path

from mixdtp_jax.data import matching, pairs
from mixdtp_jax.data.datasets.builder import PairsBuilder


class OwnPairs(PairsBuilder, skip_registration=True):
  """SOURCE/{train,test}/{rainy,clean}, files of equal stems."""

  name = 'pairs'

  def find_pairs(self, source: Path) -> dict[str, list[pairs.PairFiles]]:
    """See the base class; `folders.find_pairs` says what is accepted."""
    splits = ('train', 'test')
    if not all((source / split).is_dir() for split in splits):
      raise FileNotFoundError(
        f'{source} has {matching.content(source)}; expected train/ and test/, '
        'each with rainy/ and clean/ in it'
      )
    return {split: matching.find_pairs(source / split) for split in splits}
