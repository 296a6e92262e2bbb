"""What all data sets share: how pairs are checked, stored and read back.

A data set is prepared once: every image is checked, and the files' own bytes
are written to array_record files, which give random access. A data set's own
file only says how its pairs are found.
"""

import abc
import os
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from mixdtp_jax.data import folders
from mixdtp_jax.data.folders import PairFiles

# TensorFlow takes a GPU's whole memory when it starts; that is for JAX.
tf.config.set_visible_devices([], 'GPU')


class PairsBuilder(
  tfds.core.GeneratorBasedBuilder, abc.ABC, skip_registration=True
):
  """Base of all data sets; features name, rainy, clean, height, width.

  The prepared copy records its source folder and its smallest training side,
  so that it is not taken for another one.
  """

  VERSION = tfds.core.Version('1.0.0')
  # TFDS looks beside the code for checksums of downloads, of which there are
  # none, and the look-up needs a package that TFDS does not bring.
  code_path = None

  def __init__(self, *, source: str, data_dir: str, crop: int = 0):
    """Writes and reads nothing but what TFDS finds already prepared.

    Args:
      source: the folder of the files as published.
      data_dir: where prepared copies are, each in a folder of its name.
      crop: side that every training image must have at least, in pixels.
    """
    self._source = source
    self._crop = crop
    super().__init__(data_dir=data_dir, file_format='array_record')

  @abc.abstractmethod
  def find_pairs(self, source: Path) -> dict[str, Iterable[PairFiles]]:
    """The pairs of 'train' and 'test'.

    Raises:
      FileNotFoundError, ValueError: `source` is not laid out as expected.
    """

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(
        {
          'name': tfds.features.Text(),
          'rainy': tfds.features.Image(shape=(None, None, 3)),
          'clean': tfds.features.Image(shape=(None, None, 3)),
          'height': tf.int32,
          'width': tf.int32,
        }
      ),
      # Evaluation lists images in the published order; training has its own.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    self.info.metadata['source'] = source_id(self._source)
    splits = self.find_pairs(Path(self._source))
    return {
      split: self._generate_examples(split, pairs)
      for split, pairs in splits.items()
    }

  def _generate_examples(self, split: str, pairs: Iterable[PairFiles]):
    for number, pair in enumerate(pairs):
      example = _checked(pair)
      side = min(example['height'], example['width'])
      if split == 'train':
        self._note_training_side(pair, side)
      yield number, example

  def _note_training_side(self, pair: PairFiles, side: int) -> None:
    if side < self._crop:
      file = f' ({pair.rainy})' if isinstance(pair.rainy, Path) else ''
      raise ValueError(
        f'{pair.name}{file} has a side of {side} pixels, smaller than '
        f'data.crop = {self._crop}: take a smaller crop or remove the pair'
      )
    metadata = self.info.metadata
    smallest = metadata.get('smallest_training_side', side)
    metadata['smallest_training_side'] = min(smallest, side)


class PreparedPairs:
  """One split of a prepared data set; a `folders.Pairs`."""

  def __init__(self, builder: PairsBuilder, split: str):
    """Opens a split.

    Raises:
      ValueError: there is no such split.
    """
    if split not in builder.info.splits:
      raise ValueError(
        f'{builder.name} has no split {split!r}, only '
        f'{", ".join(sorted(builder.info.splits))}'
      )
    skip = tfds.decode.SkipDecoding()
    self._records = builder.as_data_source(
      split, decoders={'rainy': skip, 'clean': skip}
    )

  def __len__(self) -> int:
    """Number of pairs."""
    return len(self._records)

  def __getitem__(self, index: int) -> dict:
    """The decoded pair; see `folders.Pairs`."""
    record = self._records[index]
    name = record['name'].decode()
    return {
      'name': name,
      'rainy': folders.read_image(record['rainy'], name),
      'clean': folders.read_image(record['clean'], name),
    }

  def shape(self, index: int) -> tuple[int, int]:
    """(H, W), as stored beside the image."""
    record = self._records[index]
    return int(record['height']), int(record['width'])


def source_id(source: str) -> str:
  """How a prepared copy remembers its source folder."""
  return os.path.realpath(source) if source else ''


def _checked(pair: PairFiles) -> dict:
  """The example of a pair whose images were decoded in full."""
  encoded, shapes = {}, []
  for side in ('rainy', 'clean'):
    image = getattr(pair, side)
    shapes.append(folders.read_image(image, f'{pair.name} ({side})').shape)
    is_file = isinstance(image, Path)
    encoded[side] = image.read_bytes() if is_file else image
  folders.check_same_size(pair.name, *shapes)
  height, width, _ = shapes[0]
  return {'name': pair.name, 'height': height, 'width': width, **encoded}
