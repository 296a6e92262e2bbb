"""The data sets: how the files of each are laid out, and how many there are."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mixdtp_jax.data import layouts
from mixdtp_jax.data.datasets import photographs
from mixdtp_jax.data.layouts import (
  EQUAL_NAMES,
  OWN_PAIRS,
  Layout,
  Split,
  one_side,
  side_by_side,
  two_files,
)
from mixdtp_jax.data.pairs import PairFiles

Splits = Mapping[str, Sequence[PairFiles]]


class DataSet(NamedTuple):
  """A data set, read from a folder or drawn without one."""

  splits: Mapping[str, Split] = {}  # how each split is read
  sides: tuple[str, ...] = ('rainy', 'clean')  # the images of a pair
  drawn: Callable[[], Splits] | None = None  # draws the pairs of each split

  @property
  def counts(self) -> dict[str, tuple[int, ...]]:
    """Numbers of pairs of published versions, by split."""
    return {n: s.counts for n, s in self.splits.items() if s.counts}

  def find_pairs(self, source: Path, partial: bool) -> Splits:
    """Finds the pairs of each split by names of files, without reading them.

    FileNotFoundError or ValueError if the folder `source` is not laid out as
    expected; if `partial`, splits may be missing.
    """
    if self.drawn:
      return self.drawn()
    wanted = {
      name: split
      for name, split in self.splits.items()
      if split.places(source) or not (partial or split.optional)
    }
    # With no split at all, the error says what is expected.
    wanted = wanted or dict(self.splits)
    return {n: layouts.find_pairs(source, s) for n, s in wanted.items()}

  def unlike_published(self, sizes: dict[str, int]) -> str:
    """Describes how numbers by split differ from the published ones, or ''."""
    return ', '.join(
      f'{sizes.get(split, 0):,} {split} pairs instead of '
      + ' or '.join(f'{count:,}' for count in counts)
      for split, counts in self.counts.items()
      if sizes.get(split, 0) not in counts
    )


def _read(*sides: str, **splits: Split) -> DataSet:
  """Returns a set that is read; `sides` are given if it has only one."""
  return DataSet(splits, sides or ('rainy', 'clean'))


def _rain100(letter: str, train: tuple[int, ...]) -> DataSet:
  """Rain100L and Rain100H.

  Yang et al., Deep Joint Rain Detection and Removal from a Single Image, CVPR
  2017. In the published archive, names of training files end in x2. In copies
  with PReNet's layout, the clean files lie beside a folder rainy/ or beside the
  rainy files.
  """
  flat = (
    two_files('rainy/norain-{i}x2', 'norain-{i}'),
    two_files('rainy/rain-{i}', 'norain-{i}'),
    two_files('rain-{i}', 'norain-{i}'),
    EQUAL_NAMES,
  )
  trained = two_files('rain/norain-{i}x2', 'norain/norain-{i}')
  tested = two_files('rain/rain-{i}', 'norain/norain-{i}')
  return _read(
    train=Split(('train', f'RainTrain{letter}'), (trained, *flat), train),
    test=Split(('test', f'Rain100{letter}'), (tested, *flat), (100,)),
  )


def _rain200(letter: str) -> DataSet:
  """Rain200L and Rain200H, which the same authors published later.

  They replace Rain100L and Rain100H. Rain200L's test images are the training
  images of Rain100L.
  """
  folders = f'rain_{letter}', f'rain_{letter}/X2', 'rain', 'rain/X2'
  known = [EQUAL_NAMES]
  for folder in folders:
    known += [
      two_files(f'{folder}/{{i}}x2', 'norain/{i}'),
      two_files(f'{folder}/norain-{{i}}x2', 'norain/norain-{i}'),
    ]
  return _read(
    train=Split(('train',), tuple(known), (1800,)),
    test=Split(('test',), tuple(known), (200,)),
  )


def _listed(folder: Path) -> list[PairFiles]:
  """Returns the pairs of SPA-Data's list; its paths are relative to `folder`.

  The published list has a slash before each path.
  """
  file = folder / 'real_world.txt'
  pairs: list[PairFiles] = []
  if not file.is_file():
    return pairs
  try:
    text = file.read_text('utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(f'{file} is not UTF-8 ({error}): get it again') from None
  for number, line in enumerate(text.splitlines(), 1):
    paths = [path.lstrip('/') for path in line.split()]
    if len(paths) != 2:
      raise ValueError(
        f'{file}, line {number}: {line!r} is not a rainy and a clean path '
        'with a space between them'
      )
    name = os.path.splitext(paths[0])[0]
    pairs.append(PairFiles(name, folder / paths[0], folder / paths[1]))
  return pairs


def _spa() -> DataSet:
  """SPA-Data: real rain, with clean images made from videos.

  Wang et al., Spatial Attentive Single-Image Deraining with a High Quality Real
  Rain Dataset, CVPR 2019. Its training pairs are crops of 256 pixels.
  """
  with_list = Layout(
    'real_world.txt with lines of a rainy and a clean path beside it', _listed
  )
  tested = [
    two_files(f'{above}rain/{{i}}', f'{above}gt/{{i}}{end}')
    for above in ('', 'real_test_1000/')
    for end in ('', 'gt')
  ]
  train = '.', 'train', 'training', 'Training'
  test = 'test', 'testing', 'Testing', 'real_test_1000'
  return _read(
    train=Split(train, (with_list, EQUAL_NAMES), (638_492,)),
    test=Split(test, (*tested, EQUAL_NAMES), (1000,)),
  )


def _did() -> DataSet:
  """DID-Data, also Rain1200: three densities of drawn rain.

  Zhang and Patel, Density-aware Single Image De-raining using a Multi-stream
  Dense Network, CVPR 2018. The training pairs are published in one folder for
  each density, all with the same file names; many copies have a single folder.
  """
  one_file = side_by_side('{i}', rainy='left')
  folders = [f'Rain_{d}/train2018new' for d in ('Heavy', 'Medium', 'Light')]

  def by_density(folder: Path) -> list[PairFiles]:
    return [
      pair._replace(name=f'{Path(density).parent}/{pair.name}')
      for density in folders
      for pair in one_file.pairs(folder / density)
    ]

  densities = Layout(
    f'{", ".join(folders)}, each with {one_file.text}', by_density
  )
  known = one_file, two_files('input/{name}', 'GT/{name}'), EQUAL_NAMES
  return _read(
    train=Split(('train', 'DID-MDN-training'), (densities, *known), (12_000,)),
    test=Split(('test', 'DID-MDN-test'), known, (1_200,)),
  )


# Qian et al., Attentive Generative Adversarial Network for Raindrop Removal
# from a Single Image, CVPR 2018: photographs through drops on a glass before
# the lens. Papers use the well aligned test_a.
_RAINDROP = two_files('data/{i}_rain', 'gt/{i}_clean'), EQUAL_NAMES
# Fu et al., Removing Rain from Single Images via a Deep Detail Network, CVPR
# 2017: 14 rainy versions of each photograph.
_DDN = two_files('rainy_image/{i}_{k}', 'ground_truth/{i}'), EQUAL_NAMES
# Zhang et al., Image De-raining Using a Conditional Generative Adversarial
# Network, arXiv:1701.05957. The 100 test pairs are the Test100 of Rain13K.
_RAIN800 = side_by_side('{i}', rainy='right'), EQUAL_NAMES

DATASETS: dict[str, DataSet] = {
  'pairs': _read(
    train=Split(('train',), (OWN_PAIRS,)),
    val=Split(('val',), (OWN_PAIRS,), optional=True),
    test=Split(('test',), (OWN_PAIRS,)),
  ),
  'synthetic': _read('clean', train=Split(('.',), (one_side('clean'),))),
  'photographs': DataSet(drawn=photographs.draw_pairs),
  'rain100l': _rain100('L', (200,)),
  # 546 backgrounds of the 1800 are also in its test set, as PReNet's authors
  # found (Ren et al., CVPR 2019); 1254 pairs remain without them.
  'rain100h': _rain100('H', (1800, 1254)),
  'rain200l': _rain200('L'),
  'rain200h': _rain200('H'),
  'spa': _spa(),
  'raindrop': _read(
    train=Split(('train',), _RAINDROP, (861,)),
    test=Split(('test_a',), _RAINDROP, (58,)),
    test_b=Split(('test_b',), _RAINDROP, (249,)),
  ),
  # Rain in Driving (Li et al., Single Image Deraining: A Comprehensive
  # Benchmark Analysis, CVPR 2019): real rain, no clean images.
  'rid': _read('rainy', test=Split(('.',), (one_side('rainy'),), (2495,))),
  'did': _did(),
  'ddn': _read(
    train=Split(('train', 'training'), _DDN, (12_600,)),
    test=Split(('test', 'testing'), _DDN, (1_400,)),
  ),
  'rain800': _read(
    train=Split(('train', 'training'), _RAIN800, (700,)),
    test=Split(('test', 'test_syn'), _RAIN800, (100,)),
  ),
}
