"""The data sets by name; preparing and opening them."""

import contextlib
import io

from absl import logging

from mixdtp_jax.data.datasets.builder import PairsBuilder, audit_id, source_id
from mixdtp_jax.data.datasets.ddn import Ddn
from mixdtp_jax.data.datasets.did import Did
from mixdtp_jax.data.datasets.own_pairs import OwnPairs
from mixdtp_jax.data.datasets.photographs import Photographs
from mixdtp_jax.data.datasets.prepared import PreparedPairs
from mixdtp_jax.data.datasets.rain100 import Rain100H, Rain100L
from mixdtp_jax.data.datasets.rain200 import Rain200H, Rain200L
from mixdtp_jax.data.datasets.rain800 import Rain800
from mixdtp_jax.data.datasets.raindrop import RainDrop
from mixdtp_jax.data.datasets.rid import Rid
from mixdtp_jax.data.datasets.spa import Spa
from mixdtp_jax.data.datasets.synthetic import Synthetic
from mixdtp_jax.data.tf import tfds
from mixdtp_jax.runtime.spelling import did_you_mean

DATASETS: dict[str, type[PairsBuilder]] = {
  'pairs': OwnPairs,
  'synthetic': Synthetic,
  'photographs': Photographs,
  'rain100l': Rain100L,
  'rain100h': Rain100H,
  'rain200l': Rain200L,
  'rain200h': Rain200H,
  'spa': Spa,
  'raindrop': RainDrop,
  'rid': Rid,
  'did': Did,
  'ddn': Ddn,
  'rain800': Rain800,
}


def prepare(
  name: str,
  *,
  source: str,
  data_dir: str,
  crop: int = 0,
  partial: bool = False,
  exclude: str = '',
) -> PairsBuilder:
  """Checks a data set and writes DATA_DIR/NAME/1.0.0, unless it exists.

  Args:
    name: a key of DATASETS.
    source: the folder of the published files; '' accepts a prepared copy from
      any source.
    data_dir: the folder of prepared copies.
    crop: smallest side that every training image must have, in pixels.
    partial: accept an incomplete copy of a published set.
    exclude: JSON file of an audit, whose findings are left out; '' leaves out
      nothing, but accepts a prepared copy of any audit.

  Raises:
    ValueError: the name is unknown, files do not fit, or the prepared copy has
      another source or audit, or images smaller than `crop`.
    FileNotFoundError: `source` lacks files, or is '' without a prepared copy.
  """
  if name not in DATASETS:
    raise ValueError(
      f'data set {name!r} is unknown{did_you_mean(name, DATASETS)}; choose '
      f'from {", ".join(DATASETS)}'
    )

  def make_builder() -> PairsBuilder:
    return DATASETS[name](
      source=source,
      data_dir=data_dir,
      crop=crop,
      partial=partial,
      exclude=exclude,
    )

  builder = make_builder()
  if not builder.data_path.exists():
    if builder.reads_source and not source:
      raise FileNotFoundError(
        f'{data_dir} has no prepared {name}: mixdtp prepare {name} --source '
        f'FOLDER --data_dir {data_dir} makes it'
      )
    _write(builder)
    # Another process may have written it: it is read in the same way.
    builder = make_builder()
  _check_prepared(builder, source, crop, exclude)
  return builder


def open_split(
  name: str, *, source: str, data_dir: str, split: str, crop: int = 0
) -> PreparedPairs:
  """Opens the pairs of a split, and prepares the set first if necessary.

  Args:
    name: see `prepare`.
    source: see `prepare`.
    data_dir: see `prepare`.
    split: 'train', 'test', or another split of the set.
    crop: see `prepare`.

  Raises:
    FileNotFoundError, ValueError: see `prepare`.
    ValueError: the set has no such split, or lacks rainy or clean images.
  """
  builder = prepare(name, source=source, data_dir=data_dir, crop=crop)
  # Training draws rain on sets that have only clean images.
  for side in ('clean',) if split == 'train' else ('rainy', 'clean'):
    if side not in builder.sides:
      raise ValueError(
        f'{name} has no {side} images, which training and scores need: choose '
        'another data set'
      )
  return PreparedPairs(builder, split)


def _write(builder: PairsBuilder) -> None:
  for left in builder.data_path.parent.glob('*incomplete*'):
    logging.warning(
      '%s was left by a process that was killed, or is being written by one '
      'that runs: delete it if none does',
      left,
    )
  try:
    # TFDS prints that it downloads, although it does not.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
  except OSError:
    # Another host with the same folder finished first, and its copy stays.
    if not builder.data_path.exists():
      raise


def _check_prepared(
  builder: PairsBuilder, source: str, crop: int, exclude: str
) -> None:
  metadata = builder.info.metadata
  if source and source_id(source) != metadata['source']:
    raise ValueError(
      f'{builder.data_path} was prepared from {metadata["source"]!r}, not from '
      f'data.source = {source!r}: choose another data_dir, delete that copy, '
      "or set data.source = '' to use it as it is"
    )
  if exclude and audit_id(exclude) != metadata.get('audit', ''):
    raise ValueError(
      f'{builder.data_path} was prepared without what {exclude} excludes: '
      'choose another data_dir or delete that copy'
    )
  sizes = {n: split.num_examples for n, split in builder.info.splits.items()}
  if differing := builder.unlike_published(sizes):
    logging.warning(
      '%s is a part of the data set: it has %s', builder.data_path, differing
    )
  smallest = metadata.get('smallest_training_side', crop)
  if smallest < crop:
    raise ValueError(
      f'{builder.data_path} has a training image with a side of {smallest} '
      f'pixels, smaller than data.crop = {crop}: take a smaller crop, or '
      'delete that copy and prepare it without the small images'
    )
