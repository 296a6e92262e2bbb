"""Rain100L: 200 training and 100 test pairs with light rain.

Yang et al., Deep Joint Rain Detection and Removal from a Single Image, CVPR
2017. The training files carry an x2 in their names in the published archive.
"""

from pathlib import Path

from mixdtp_jax.data import folders
from mixdtp_jax.data.datasets.base import PairsBuilder

# Split: (rainy file, clean file), and the number of pairs, counted from 1.
LAYOUT = {
  'train': ('rain/norain-{}x2.png', 'norain/norain-{}.png', 200),
  'test': ('rain/rain-{:03d}.png', 'norain/norain-{:03d}.png', 100),
}


class Rain100L(PairsBuilder, skip_registration=True):
  """Rain100L as published: 200 training and 100 test pairs."""

  name = 'rain100l'

  def find_pairs(self, source: Path) -> dict[str, list[folders.PairFiles]]:
    """See the base class."""
    return {split: _find(source / split, *LAYOUT[split]) for split in LAYOUT}


def _find(folder: Path, rainy: str, clean: str, count: int):
  files = []
  for names in (rainy, clean):
    files.append({i: folder / names.format(i) for i in range(1, count + 1)})
  missing = [p for side in files for p in side.values() if not p.is_file()]
  if missing:
    raise FileNotFoundError(
      f'{len(missing)} of {2 * count} files of Rain100L are missing, the first '
      f'is {missing[0]}; expected {folder}/{rainy} and {clean} for 1 to '
      f'{count}, and {folder} has {folders.content(folder)}'
    )
  return folders.match(*files)
