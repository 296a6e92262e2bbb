"""SPA-Data: real rain, with clean images made from videos.

Wang et al., Spatial Attentive Single-Image Deraining with a High Quality Real
Rain Dataset, CVPR 2019. Its training pairs are crops of 256 pixels, listed in a
file with lines 'rainy clean'.
"""

from collections.abc import Sequence
from pathlib import Path

from mixdtp_jax.data.datasets.builder import PublishedPairs
from mixdtp_jax.data.layouts import Split, TwoFiles
from mixdtp_jax.data.pairs import PairFiles


class Listed(Sequence):
  """The pairs of a list with two paths per line, made when they are read.

  The list takes 80 MB of memory; 638,492 pairs of Path objects take 390 MB.
  """

  def __init__(self, file: Path):
    """Reads the list, whose paths are relative to its folder.

    Raises:
      ValueError: a line does not have two paths.
    """
    self._folder = file.parent
    self._lines = file.read_text().splitlines()
    for number, line in enumerate(self._lines, 1):
      if len(line.split()) != 2:
        raise ValueError(
          f'{file}, line {number}: {line!r} is not a rainy and a clean path '
          'with a space between them'
        )

  def __len__(self) -> int:
    """Returns the number of pairs."""
    return len(self._lines)

  def __getitem__(self, index: int) -> PairFiles:
    """Returns the pair of a line."""
    # The published list has a slash before each path.
    rainy, clean = (p.lstrip('/') for p in self._lines[index].split())
    name = str(Path(rainy).with_suffix(''))
    return PairFiles(name, self._folder / rainy, self._folder / clean)


class ListFile:
  """The published layout of the training pairs."""

  def __str__(self) -> str:
    """Returns the text for errors."""
    return 'real_world.txt with lines of a rainy and a clean path beside it'

  def patterns(self) -> tuple[str, ...]:
    """See `layouts.Layout`."""
    return ('real_world',)

  def pairs(self, folder: Path) -> Sequence[PairFiles]:
    """See `layouts.Layout`."""
    file = folder / 'real_world.txt'
    return Listed(file) if file.is_file() else ()


RENAMED = TwoFiles('input/{name}', 'target/{name}')


class Spa(PublishedPairs, skip_registration=True):
  """SPA-Data: 638,492 training crops of 256x256 pixels and 1000 test pairs."""

  name = 'spa'
  SPLITS = {
    'train': Split(
      ('.', 'train', 'training', 'Training'),
      (ListFile(), RENAMED),
      (638_492,),
    ),
    'test': Split(
      ('test', 'testing', 'Testing', 'real_test_1000'),
      (
        TwoFiles('rain/{i}', 'gt/{i}'),
        TwoFiles('rain/{i}', 'gt/{i}gt'),
        TwoFiles('real_test_1000/rain/{i}', 'real_test_1000/gt/{i}'),
        TwoFiles('real_test_1000/rain/{i}', 'real_test_1000/gt/{i}gt'),
        RENAMED,
      ),
      (1000,),
    ),
  }
