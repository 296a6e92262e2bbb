"""Reading of prepared copies."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from mixdtp_jax.data import images as images_lib
from mixdtp_jax.data.datasets.published import DATASETS
from mixdtp_jax.data.tf import tfds
from mixdtp_jax.runtime.files import dump_json

_SEAL = 'seal.json'  # sizes of the copy's files, and digests of small ones
_SMALL = 2**20  # bytes; records have checksums of their own


class PreparedPairs:
  """The pairs of one split of a prepared data set.

  ValueError, in every method, if the copy is damaged or lacks the split.

  Attributes:
    name: name of the data set, after 'part of ' if the split is incomplete.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
    self._path = Path(builder.data_path)
    name = self._path.parent.name
    if split not in builder.info.splits:
      raise ValueError(
        f'{name} has no split {split!r}, only '
        f'{", ".join(sorted(builder.info.splits))}'
      )
    size = builder.info.splits[split].num_examples
    whole = size in DATASETS[name].counts.get(split, (size,))
    self.name = name if whole else f'part of {name}'
    self._sides = DATASETS[name].sides
    with reading(self._path):
      self._records = builder.as_data_source(
        split, decoders=dict.fromkeys(self._sides, tfds.decode.SkipDecoding())
      )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict:
    with reading(self._path):
      record = self._records[index]
      name = record['name'].decode()
      images = {s: images_lib.read_image(record[s], name) for s in self._sides}
    return {'name': name} | images

  def shape(self, index: int) -> tuple[int, int]:
    """Returns (H, W), which is stored with the image."""
    with reading(self._path):
      record = self._records[index]
      return int(record['height']), int(record['width'])


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
  """Makes any error of the body a ValueError that names a prepared copy.

  `path` is its folder, DATA_DIR/NAME/VERSION.
  """
  try:
    yield
  # TFDS, Riegeli and protobuf raise anything on damaged files.
  except Exception as error:
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    raise ValueError(
      f'{path} is damaged ({reason}): write it again with mixdtp prepare '
      f'{path.parent.name} --source FOLDER --data_dir {path.parents[1]} --again'
    ) from error


def seal(path: Path) -> None:
  """Records the files of a copy that was just written."""
  dump_json({p.name: _state(p) for p in path.iterdir()}, path / _SEAL)


def check_seal(path: Path) -> None:
  """Raises an error unless a copy's files are those that were written.

  Copies of older versions have no seal, and are not checked.
  """
  if (path / _SEAL).exists():
    for name, state in json.loads((path / _SEAL).read_text()).items():
      if _state(path / name) != state:
        raise ValueError(f'{name} is not as it was written')


def _state(path: Path) -> list:
  size = path.stat().st_size
  small = path.read_bytes() if size <= _SMALL else b''
  return [size, hashlib.blake2b(small, digest_size=16).hexdigest()]
