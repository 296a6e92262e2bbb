"""DID-Data, also Rain1200: three densities of drawn rain.

Zhang and Patel, Density-aware Single Image De-raining using a Multi-stream
Dense Network, CVPR 2018. The training pairs are published in one folder for
each density, all with the same file names; many copies have a single folder.
"""

from pathlib import Path

from mixdtp_jax.data.datasets.builder import PublishedPairs
from mixdtp_jax.data.layouts import SideBySide, Split, TwoFiles
from mixdtp_jax.data.pairs import PairFiles

ONE_FILE = SideBySide('{i}', rainy='left')


class Densities:
  """The published layout of the training pairs, one folder per density."""

  FOLDERS = tuple(
    f'Rain_{density}/train2018new' for density in ('Heavy', 'Medium', 'Light')
  )

  def __str__(self) -> str:
    """Returns the text for errors."""
    return f'{", ".join(self.FOLDERS)}, each with {ONE_FILE}'

  def patterns(self) -> tuple[str, ...]:
    """See `layouts.Layout`."""
    return tuple(f'{folder}/{ONE_FILE.file}' for folder in self.FOLDERS)

  def pairs(self, folder: Path) -> list[PairFiles]:
    """See `layouts.Layout`."""
    return [
      pair._replace(name=f'{Path(density).parent}/{pair.name}')
      for density in self.FOLDERS
      for pair in ONE_FILE.pairs(folder / density)
    ]


LAYOUTS = (
  ONE_FILE,
  TwoFiles('input/{name}', 'GT/{name}'),
  TwoFiles('input/{name}', 'target/{name}'),
)


class Did(PublishedPairs, skip_registration=True):
  """DID-Data: 12,000 training and 1,200 test pairs."""

  name = 'did'
  SPLITS = {
    'train': Split(
      ('train', 'DID-MDN-training'), (Densities(), *LAYOUTS), (12_000,)
    ),
    'test': Split(('test', 'DID-MDN-test'), LAYOUTS, (1_200,)),
  }
