"""The base of all data sets: pairs are checked and stored for training.

A data set is prepared once: every image is checked, and the files' own bytes
are written to array_record files, which give random access. The file of a data
set only says how its pairs are found.
"""

import abc
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mixdtp_jax.data import findings, layouts
from mixdtp_jax.data import images as images_lib
from mixdtp_jax.data import pairs as pairs_lib
from mixdtp_jax.data.pairs import PairFiles
from mixdtp_jax.data.tf import tf, tfds
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.runtime.console import progress


class PairsBuilder(
  tfds.core.GeneratorBasedBuilder, abc.ABC, skip_registration=True
):
  """Base of all data sets, with features name, height, width and the sides.

  The prepared copy records its source folder and its smallest training side,
  so that it is not mistaken for another copy.

  Attributes:
    sides: the images that the set has, of 'rainy' and 'clean'.
    counts: numbers of pairs of published versions, by split.
    reads_source: whether the set is made from a folder of files.
  """

  VERSION = tfds.core.Version('1.0.0')
  # Keeps TFDS from looking for checksums of downloads beside the code, which
  # needs a package that TFDS does not bring.
  code_path = None

  sides: tuple[str, ...] = ('rainy', 'clean')
  counts: dict[str, tuple[int, ...]] = {}
  reads_source = True

  def __init__(
    self,
    *,
    source: str,
    data_dir: str,
    crop: int = 0,
    partial: bool = False,
    exclude: str = '',
  ):
    """Reads what TFDS finds already prepared; writes nothing.

    Args:
      source: the folder of the published files.
      data_dir: the folder of prepared copies, one folder for each set.
      crop: smallest side that every training image must have, in pixels.
      partial: accept an incomplete copy of a published set.
      exclude: JSON file of an audit, whose findings are left out.
    """
    self._source = source
    self._data_dir_given = data_dir
    self._crop = crop
    self._partial = partial
    self._exclude = exclude
    super().__init__(data_dir=data_dir, file_format='array_record')

  @abc.abstractmethod
  def find_pairs(self, source: Path) -> dict[str, Sequence[PairFiles]]:
    """Finds the pairs of each split by file names, without opening images.

    Raises:
      FileNotFoundError, ValueError: `source` is not laid out as expected.
    """

  def _info(self) -> tfds.core.DatasetInfo:
    images = {s: tfds.features.Image(shape=(None, None, 3)) for s in self.sides}
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(
        {'name': tfds.features.Text(), 'height': tf.int32, 'width': tf.int32}
        | images
      ),
      # Evaluation needs the published order; training makes its own.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    self.info.metadata['source'] = source_id(self._source)
    self.info.metadata['audit'] = audit_id(self._exclude)
    splits = self.find_pairs(Path(self._source))
    sizes = {split: len(pairs) for split, pairs in splits.items()}
    if not self._partial and (differing := self.unlike_published(sizes)):
      raise ValueError(
        f'{self._source} is not {self.name} as published: {differing}; '
        'complete it, or prepare what is there by mixdtp prepare '
        f'{self.name} --source {self._source} --data_dir '
        f'{self._data_dir_given} --partial'
      )
    if self._exclude:
      found = findings.read_audit(self._exclude)
      splits = findings.leave_out(self.name, splits, found)
    return {
      split: self._generate_examples(split, pairs)
      for split, pairs in splits.items()
    }

  def unlike_published(self, sizes: dict[str, int]) -> str:
    """Describes how numbers of pairs differ from the published ones, or ''.

    Args:
      sizes: number of pairs by split.
    """
    return ', '.join(
      f'{sizes.get(split, 0):,} {split} pairs instead of '
      + ' or '.join(f'{count:,}' for count in counts)
      for split, counts in self.counts.items()
      if sizes.get(split, 0) not in counts
    )

  def _generate_examples(self, split: str, pairs: Sequence[PairFiles]):
    report = progress(f'{self.name}: checked {split}', len(pairs))
    checked = map_in_threads(_checked, pairs)
    for number, (pair, example) in enumerate(zip(pairs, checked, strict=True)):
      side = min(example['height'], example['width'])
      if split == 'train':
        self._note_training_side(pair, side)
      # TFDS sorts by 128-bit key in a thousand parts, each in memory: keys from
      # 0 on would all be in one part.
      yield (number << 128) // len(pairs), example
      report(number + 1)

  def _note_training_side(self, pair: PairFiles, side: int) -> None:
    if side < self._crop:
      raise ValueError(
        f'{_label(pair, self.sides[0])} has a side of {side} pixels, smaller '
        f'than data.crop = {self._crop}: take a smaller crop or remove the pair'
      )
    metadata = self.info.metadata
    smallest = metadata.get('smallest_training_side', side)
    metadata['smallest_training_side'] = min(smallest, side)


class PublishedPairs(PairsBuilder, skip_registration=True):
  """Base of data sets that are found by the layouts of their files."""

  SPLITS: dict[str, layouts.Split]

  def __init_subclass__(cls, **kwargs):
    """Sets the counts from the splits."""
    super().__init_subclass__(**kwargs)
    cls.counts = {name: split.counts for name, split in cls.SPLITS.items()}

  def find_pairs(self, source: Path) -> dict[str, Sequence[PairFiles]]:
    """See the base class."""
    wanted = self.SPLITS
    if self._partial:  # with no split at all, the error says what is expected
      wanted = {n: s for n, s in wanted.items() if s.places(source)} or wanted
    return {n: layouts.find_pairs(source, s) for n, s in wanted.items()}


def source_id(source: str) -> str:
  """Returns the record of a source folder in a prepared copy."""
  return os.path.realpath(source) if source else ''


def audit_id(path: str) -> str:
  """Returns the record of an audit's file in a prepared copy; '' for none."""
  return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ''


def _checked(pair: PairFiles) -> dict:
  """Decodes the images of a pair, and returns its example."""
  sides = {s: getattr(pair, s) for s in ('rainy', 'clean')}
  sides = {side: image for side, image in sides.items() if image is not None}
  encoded = {side: images_lib.encoded(image) for side, image in sides.items()}
  shapes = [
    images_lib.read_image(image, _label(pair, side)).shape
    for side, image in encoded.items()
  ]
  pairs_lib.check_same_size(pair.name, shapes[0], shapes[-1])
  height, width, _ = shapes[0]
  return {'name': pair.name, 'height': height, 'width': width, **encoded}


def _label(pair: PairFiles, side: str) -> str:
  """Returns the name of an image for errors: its file, if it has one."""
  image = getattr(pair, side)
  return str(image) if isinstance(image, Path) else f'{pair.name} ({side})'
