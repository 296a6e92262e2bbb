"""Writing of prepared copies.

Every image is checked, and the files' own bytes are written to array_record
files, which give random access.
"""

import contextlib
import functools
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mixdtp_jax.data import images as images_lib
from mixdtp_jax.data.datasets.published import DATASETS, Splits
from mixdtp_jax.data.images import Half
from mixdtp_jax.data.pairs import PairFiles, check_same_size
from mixdtp_jax.data.tf import tf, tfds
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.runtime.console import progress

VERSION = '1.0.0'
MEMORY_MB = 4_096
_BYTES_PER_PIXEL = 17  # while an image is decoded
_SHARD = 4_096  # pairs in a file


def write(
  folder: Path,
  name: str,
  splits: Splits,
  metadata: dict[str, Any],
  *,
  crop: int,
  memory_mb: float,
) -> None:
  """Checks the pairs of a data set and writes them into an empty folder.

  `metadata` is what else the copy records; the other arguments are those of
  `registry.prepare`. ValueError if an image does not fit.
  """
  image = tfds.features.Image(shape=(None, None, 3))
  features = {'name': tfds.features.Text(), 'height': tf.int32}
  features |= {'width': tf.int32}
  features |= dict.fromkeys(DATASETS[name].sides, image)
  info = tfds.core.DatasetInfo(
    builder=tfds.core.dataset_info.DatasetIdentity(
      name=name, version=VERSION, data_dir=str(folder), module_name=''
    ),
    description=f'Pairs of {name}.',
    features=tfds.features.FeaturesDict(features),
    disable_shuffling=True,  # evaluation needs the published order
    metadata=tfds.core.MetadataDict(metadata),
  )
  memory = _Memory(memory_mb)
  shortest: list[int] = []  # side of each training image

  def examples(split: str, pairs: Sequence[PairFiles]) -> Iterator[dict]:
    report = progress(f'{name}: checked {split}', len(pairs))
    least = crop if split == 'train' else 0
    check = functools.partial(_checked, memory=memory, crop=least)
    for done, example in enumerate(map_in_threads(check, pairs), 1):
      if split == 'train':
        shortest.append(min(example['height'], example['width']))
      yield example
      report(done)

  writer = tfds.core.SequentialWriter(info, _SHARD, file_format='array_record')
  writer.initialize_splits(list(splits))
  for split, pairs in splits.items():
    writer.add_examples({split: examples(split, pairs)})
  if shortest:
    info.metadata['smallest_training_side'] = min(shortest)
  writer.close_all()


class _Memory:
  """An amount of memory that threads share."""

  def __init__(self, limit_mb: float):
    self._limit_mb = limit_mb
    self._free = limit_mb * 2**20  # bytes
    self._returned = threading.Condition()

  @contextlib.contextmanager
  def taken(self, need: int, label: str) -> Iterator[None]:
    """Waits until `need` bytes are free, and has them while the body runs."""
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


def _checked(pair: PairFiles, memory: _Memory, crop: int) -> dict:
  """Decodes the images of a pair, and returns its example."""
  labels = {
    side: str(image) if isinstance(image, Path) else f'{pair.name} ({side})'
    for side, image in pair.images.items()
  }
  label, pixels = next(iter(labels.values())), []
  for side, image in pair.images.items():
    whole = image.path if isinstance(image, Half) else image
    pixels.append(math.prod(images_lib.image_shape(whole, labels[side])))
  with memory.taken(_BYTES_PER_PIXEL * max(pixels), label):
    encoded = {s: images_lib.encoded(image) for s, image in pair.images.items()}
    shapes = [
      images_lib.read_image(image, labels[side]).shape
      for side, image in encoded.items()
    ]
  check_same_size(pair.name, shapes[0], shapes[-1])
  height, width, _ = shapes[0]
  if min(height, width) < crop:
    raise ValueError(
      f'{label} has a side of {min(height, width)} pixels, smaller than '
      f'data.crop = {crop}: take a smaller crop or remove the pair'
    )
  return {'name': pair.name, 'height': height, 'width': width, **encoded}
