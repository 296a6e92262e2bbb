"""The data sets by name, and how they are prepared and opened."""

import tensorflow_datasets as tfds

from mixdtp_jax.data.datasets.base import (
  PairsBuilder,
  PreparedPairs,
  source_id,
)
from mixdtp_jax.data.datasets.pairs import OwnPairs
from mixdtp_jax.data.datasets.photographs import Photographs
from mixdtp_jax.data.datasets.rain100l import Rain100L

DATASETS: dict[str, type[PairsBuilder]] = {
  'pairs': OwnPairs,
  'photographs': Photographs,
  'rain100l': Rain100L,
}


def prepare(
  name: str, *, source: str, data_dir: str, crop: int = 0
) -> PairsBuilder:
  """Checks a data set and writes DATA_DIR/NAME/1.0.0, unless it is there.

  Args:
    name: a key of DATASETS.
    source: the folder of the files as published; '' takes the prepared copy
      whatever it was made from.
    data_dir: the folder of prepared copies.
    crop: side that every training image must have at least, in pixels.

  Raises:
    ValueError: an unknown name, files that do not fit, or a prepared copy
      that was made from another source or has images smaller than `crop`.
    FileNotFoundError: `source` lacks files.
  """
  if name not in DATASETS:
    raise ValueError(
      f'data.name = {name!r} is unknown; known are {", ".join(DATASETS)}'
    )
  builder = DATASETS[name](source=source, data_dir=data_dir, crop=crop)
  if not builder.data_path.exists():
    _write(builder)
    # Written by another process or by this one, it is read the same way.
    builder = DATASETS[name](source=source, data_dir=data_dir, crop=crop)
  _check_prepared(builder, source, crop)
  return builder


def open_split(
  name: str, *, source: str, data_dir: str, split: str, crop: int = 0
) -> PreparedPairs:
  """The pairs of 'train' or 'test', prepared first where they are not.

  Arguments and errors as `prepare`'s.
  """
  builder = prepare(name, source=source, data_dir=data_dir, crop=crop)
  return PreparedPairs(builder, split)


def _write(builder: PairsBuilder) -> None:
  try:
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
  except OSError:
    # Another host that shares the folder finished first and its copy stays.
    if not builder.data_path.exists():
      raise


def _check_prepared(builder: PairsBuilder, source: str, crop: int) -> None:
  metadata = builder.info.metadata
  if source and source_id(source) != metadata['source']:
    raise ValueError(
      f'{builder.data_path} was prepared from {metadata["source"]!r}, not from '
      f'data.source = {source!r}: choose another data_dir, delete that copy, '
      "or set data.source = '' to use it as it is"
    )
  smallest = metadata['smallest_training_side']
  if smallest < crop:
    raise ValueError(
      f'{builder.data_path} has a training image with a side of {smallest} '
      f'pixels, smaller than data.crop = {crop}: take a smaller crop, or '
      'delete that copy and prepare it without the small images'
    )
