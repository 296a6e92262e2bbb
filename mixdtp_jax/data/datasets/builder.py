"""Writing of prepared copies: pairs are checked and stored for training.

A data set is prepared once: every image is checked, and the files' own bytes
are written to array_record files, which give random access.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixdtp_jax.data import images as images_lib
from mixdtp_jax.data import pairs as pairs_lib
from mixdtp_jax.data.datasets.published import DATASETS, Splits
from mixdtp_jax.data.images import Half
from mixdtp_jax.data.pairs import PairFiles
from mixdtp_jax.data.tf import tf, tfds
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.runtime.console import progress

MEMORY_MB = 4_096
_BYTES_PER_PIXEL = 14  # while an image is decoded


class PairsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A prepared copy, with features name, height, width and the set's sides.

  Attributes:
    data_set: the data set.
  """

  VERSION = tfds.core.Version('1.0.0')
  # Keeps TFDS from looking for checksums of downloads beside the code, which
  # needs a package that TFDS does not bring.
  code_path = None

  def __init__(
    self,
    name: str,
    data_dir: str,
    *,
    splits: Splits | None = None,
    crop: int = 0,
    memory_mb: float = MEMORY_MB,
  ):
    """Reads what TFDS finds already prepared; writes nothing.

    Args:
      name: a key of DATASETS.
      data_dir: the folder of prepared copies, one folder for each set.
      splits: the pairs to write, if there is no copy yet.
      crop: smallest side that every training image must have, in pixels.
      memory_mb: most MiB for images that are decoded at the same time.
    """
    self.name = name
    self.data_set = DATASETS[name]
    self._splits = splits or {}
    self._crop = crop
    self._memory = _Memory(memory_mb)
    super().__init__(data_dir=data_dir, file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    image = tfds.features.Image(shape=(None, None, 3))
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'Pairs of {self.name}.',
      features=tfds.features.FeaturesDict(
        {'name': tfds.features.Text(), 'height': tf.int32, 'width': tf.int32}
        | dict.fromkeys(self.data_set.sides, image)
      ),
      # Evaluation needs the published order; training makes its own.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    return {
      split: self._generate_examples(split, pairs)
      for split, pairs in self._splits.items()
    }

  def _generate_examples(self, split: str, pairs: Sequence[PairFiles]):
    report = progress(f'{self.name}: checked {split}', len(pairs))
    checked = map_in_threads(self._checked, pairs)
    for number, (pair, example) in enumerate(zip(pairs, checked, strict=True)):
      if split == 'train':
        side = min(example['height'], example['width'])
        self._note_training_side(pair, side)
      # TFDS sorts by 128-bit key in a thousand parts, each in memory: keys from
      # 0 on would all be in one part.
      yield (number << 128) // len(pairs), example
      report(number + 1)

  def _checked(self, pair: PairFiles) -> dict:
    """Decodes the images of a pair, and returns its example."""
    sides = {s: i for s in self.data_set.sides if (i := getattr(pair, s))}
    label = _label(pair, self.data_set.sides[0])
    need = max(_decoding(image, label) for image in sides.values())
    with self._memory.taken(need, label):
      encoded = {side: images_lib.encoded(i) for side, i in sides.items()}
      shapes = [
        images_lib.read_image(image, _label(pair, side)).shape
        for side, image in encoded.items()
      ]
    pairs_lib.check_same_size(pair.name, shapes[0], shapes[-1])
    height, width, _ = shapes[0]
    return {'name': pair.name, 'height': height, 'width': width, **encoded}

  def _note_training_side(self, pair: PairFiles, side: int) -> None:
    if side < self._crop:
      raise ValueError(
        f'{_label(pair, self.data_set.sides[0])} has a side of {side} pixels, '
        f'smaller than data.crop = {self._crop}: take a smaller crop or remove '
        'the pair'
      )
    metadata = self.info.metadata
    smallest = metadata.get('smallest_training_side', side)
    metadata['smallest_training_side'] = min(smallest, side)


class _Memory:
  """An amount of memory that threads share."""

  def __init__(self, limit_mb: float):
    self._limit_mb = limit_mb
    self._free = limit_mb * 2**20  # bytes
    self._returned = threading.Condition()

  @contextlib.contextmanager
  def taken(self, need: int, label: str) -> Iterator[None]:
    """Waits until `need` bytes are free, and has them while the body runs.

    Raises:
      ValueError: it is more than the limit; the message names `label`.
    """
    if need > self._limit_mb * 2**20:
      raise ValueError(
        f'{label} takes about {need >> 20:,} MiB while it is decoded, more '
        f'than the {self._limit_mb:,} MiB of --memory_mb: raise it, or make '
        'the image smaller'
      )
    with self._returned:
      self._returned.wait_for(lambda: need <= self._free)
      self._free -= need
    try:
      yield
    finally:
      with self._returned:
        self._free += need
        self._returned.notify_all()


def _decoding(image: images_lib.ImageFile, label: str) -> int:
  """Returns about how many bytes it takes to decode an image."""
  whole = image.path if isinstance(image, Half) else image
  height, width = images_lib.image_shape(whole, label)
  return _BYTES_PER_PIXEL * height * width


def _label(pair: PairFiles, side: str) -> str:
  """Returns the name of an image for errors: its file, if it has one."""
  image = getattr(pair, side)
  return str(image) if isinstance(image, Path) else f'{pair.name} ({side})'
