"""Preparing and opening data sets."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from mixdtp_jax.data import findings, images
from mixdtp_jax.data.datasets.prepared import (
  PreparedPairs,
  check_seal,
  reading,
  seal,
)
from mixdtp_jax.data.datasets.published import DATASETS, Splits
from mixdtp_jax.data.datasets.writing import MEMORY_MB, VERSION, write
from mixdtp_jax.data.tf import tfds
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.runtime import files
from mixdtp_jax.runtime.console import waiting
from mixdtp_jax.runtime.options import did_you_mean

_OLD = 'old'  # a copy that is being replaced


def prepare(
  name: str,
  *,
  source: str | None,
  data_dir: str,
  crop: int = 0,
  partial: bool = False,
  exclude: str = '',
  again: bool = False,
  memory_mb: float = MEMORY_MB,
) -> tfds.core.DatasetBuilder:
  """Checks a data set and writes DATA_DIR/NAME/1.0.0, unless it exists.

  Args:
    name: a key of DATASETS.
    source: the folder of the published files; '' takes a prepared copy of any
      source, None the same if its own source has not changed or is gone.
    data_dir: the folder of prepared copies.
    crop: smallest side that every training image must have, in pixels.
    partial: accept an incomplete copy of a published set.
    exclude: JSON file of an audit, whose findings are left out; '' leaves out
      nothing, and takes a prepared copy of any audit.
    again: replace the copy if it exists, when the new one is complete.
    memory_mb: most MiB for images that are decoded at the same time.

  Raises:
    ValueError: the name is unknown, files do not fit, or the prepared copy is
      damaged, of another source or audit, or older than its source.
    FileNotFoundError: `source` lacks files, or is '' without a prepared copy.
    PermissionError: nothing can be written into `data_dir`.
  """
  path = _copy(name, data_dir)
  _clear(path)
  if again or not path.exists():
    if not source and not DATASETS[name].drawn:
      raise FileNotFoundError(
        '--again needs --source, the folder of the original files'
        if again
        else f'{data_dir} has no prepared {name}: '
        f'{_command(name, "FOLDER", data_dir)} makes it'
      )
    if not files.is_writable(path.parent):
      raise PermissionError(
        f'data_dir = {data_dir!a}: nothing can be written there; choose another'
      )
    splits, metadata = _found(name, source or '', data_dir, partial, exclude)
    with (
      files.locked(path.parent),
      files.working_folder(path.parent, clean=False) as folder,
    ):
      new = Path(folder, VERSION)
      new.mkdir()
      write(new, name, splits, metadata, crop=crop, memory_mb=memory_mb)
      _move(new, path, again)
  with reading(path):
    check_seal(path)
    builder = tfds.builder_from_directory(path)
    sizes = {n: s.num_examples for n, s in builder.info.splits.items()}
    recorded = builder.info.metadata['source']  # fails if the copy is damaged
  if differing := DATASETS[name].unlike_published(sizes):
    logging.warning('%s is a part of the data set: it has %s', path, differing)
  _check_prepared(path, builder.info.metadata, source or '', crop, exclude)
  source = recorded if source is None else source
  _check_source(name, builder.info.metadata, source, data_dir)
  return builder


def open_split(
  name: str, *, source: str | None, data_dir: str, split: str, crop: int = 0
) -> PreparedPairs:
  """Opens the pairs of a split, and prepares the set first if necessary.

  Arguments and errors are those of `prepare`; ValueError also if the set has no
  such split, or lacks rainy or clean images.
  """
  builder = prepare(name, source=source, data_dir=data_dir, crop=crop)
  # Training draws rain on sets that have only clean images.
  for side in ('clean',) if split == 'train' else ('rainy', 'clean'):
    if side not in DATASETS[name].sides:
      raise ValueError(
        f'{name} has no {side} images, which training and scores need: choose '
        'another data set'
      )
  return PreparedPairs(builder, split)


def _copy(name: str, data_dir: str) -> Path:
  """Returns the folder of a prepared copy."""
  if name not in DATASETS:
    raise ValueError(
      f'data set {name!r} is unknown{did_you_mean(name, DATASETS)}; choose '
      f'from {", ".join(DATASETS)}'
    )
  path = Path(data_dir, name, VERSION)
  if '\ufffd' in os.fsencode(path).decode(errors='replace'):
    raise ValueError(
      f'data_dir = {data_dir!a}: TensorFlow needs a name in UTF-8; choose '
      'another folder'
    )
  return path


def _found(
  name: str, source: str, data_dir: str, partial: bool, exclude: str
) -> tuple[Splits, dict[str, str]]:
  """Returns the pairs to write, and what the copy records of their files."""
  data_set = DATASETS[name]
  splits = data_set.find_pairs(Path(source), partial)
  sizes = {split: len(pairs) for split, pairs in splits.items()}
  if not partial and (differing := data_set.unlike_published(sizes)):
    raise ValueError(
      f'{source} is not {name} as published: {differing}; complete it, or '
      'prepare what is there by '
      f'{_command(name, source, data_dir)} --partial'
    )
  metadata = {'source': _source_id(source), 'audit': _audit_id(exclude)}
  if not data_set.drawn:
    metadata['listing'] = _listing(source, splits)
    metadata['contents'] = _contents(source, splits)
  if exclude:
    found = findings.read_audit(exclude)
    splits = findings.leave_out(name, splits, found)
  return splits, metadata


def _clear(path: Path) -> None:
  """Removes what killed processes left; puts back a copy they were replacing.

  A process that writes shares a lock of the folder. Windows has no such lock:
  there, the numbers of the processes decide.
  """
  left = [
    folder
    for form in ('.writing-*', 'incomplete.*')
    for folder in path.parent.glob(form)
    if _is_unfinished(folder) and (files.fcntl or files.was_left(folder))
  ]
  if not left:
    return
  with files.locked(path.parent, alone=True) as alone:
    if not alone:
      logging.warning(
        '%s is being written by another process, or was left by one that was '
        'killed: delete it if none runs',
        left[0],
      )
      return
    for folder in left:
      old, new = folder / _OLD, folder / VERSION
      with contextlib.suppress(OSError):
        # Without a new copy beside it, the old one was replaced.
        if old.exists() and new.exists() and not path.exists():
          old.rename(path)
        shutil.rmtree(folder, ignore_errors=True)


def _is_unfinished(folder: Path) -> bool:
  """Returns whether a folder is a working folder; others are the user's."""
  try:
    return {*os.listdir(folder)} <= {VERSION, _OLD}
  except OSError:  # a file, or gone meanwhile
    return False


def _move(new: Path, path: Path, again: bool) -> None:
  """Moves a copy that was written to its place."""
  seal(new)
  old = new.with_name(_OLD)  # is removed with its folder
  if again and path.exists():
    path.rename(old)
  try:
    new.rename(path)
  except OSError:
    # Another host with the same folder finished first, and its copy stays.
    if again or not path.exists():
      raise
  finally:
    if old.exists() and not path.exists():
      old.rename(path)


def _check_prepared(
  path: Path, metadata: dict, source: str, crop: int, exclude: str
) -> None:
  if source and _source_id(source) != metadata['source']:
    raise ValueError(
      f'{path} was prepared from {metadata["source"]!r}, not from '
      f'data.source = {source!r}: choose another data_dir, delete that copy, '
      "or set data.source = '' to use it as it is"
    )
  if exclude and _audit_id(exclude) != metadata.get('audit', ''):
    raise ValueError(
      f'{path} was prepared without what {exclude} excludes: '
      'choose another data_dir or delete that copy'
    )
  smallest = metadata.get('smallest_training_side', crop)
  if smallest < crop:
    raise ValueError(
      f'{path} has a training image with a side of {smallest} '
      f'pixels, smaller than data.crop = {crop}: take a smaller crop, or '
      'delete that copy and prepare it without the small images'
    )


def _check_source(
  name: str, recorded: dict, source: str, data_dir: str
) -> None:
  """Checks that the source, if it is still there, is as it was prepared."""
  if not source or 'listing' not in recorded or not os.path.exists(source):
    return
  changed = 'files were added, removed or replaced'
  try:
    splits = DATASETS[name].find_pairs(Path(source), True)
    # Copying a folder changes times alone, so the contents decide.
    if (
      _listing(source, splits) == recorded['listing']
      or _contents(source, splits) == recorded['contents']
    ):
      return
  except (OSError, ValueError) as error:
    changed = str(error)
  raise ValueError(
    f'{source} has changed since {Path(data_dir, name)} was prepared '
    f'({changed}): prepare it again with '
    f'{_command(name, source, data_dir)} --again, or '
    "set data.source = '' to use the copy as it is"
  )


def _listing(source: str, splits: Splits) -> str:
  """Returns a digest of the files' names, sizes and times."""
  found = hashlib.blake2b(digest_size=16)
  for name, file in _source_files(source, splits):
    status = file.stat()
    found.update(b'%b %d %d\n' % (name, status.st_size, status.st_mtime_ns))
  return found.hexdigest()


def _contents(source: str, splits: Splits) -> str:
  """Returns a digest of the names and bytes of all files."""

  def digest(named: tuple[bytes, Path]) -> bytes:
    return named[0] + hashlib.blake2b(images.encoded(named[1])).digest()

  found = hashlib.blake2b(digest_size=16)
  with waiting('Reading the files'):
    for own in map_in_threads(digest, _source_files(source, splits)):
      found.update(own)
  return found.hexdigest()


def _source_files(source: str, splits: Splits) -> Iterator[tuple[bytes, Path]]:
  """Yields the files of all pairs with their names, which begin with splits."""
  for split, pairs in splits.items():
    for pair in pairs:
      for file in dict.fromkeys(
        image.path if isinstance(image, images.Half) else image
        for image in pair.images.values()
      ):
        if isinstance(file, Path):
          inside = f'{split}/{file.relative_to(source)}'
          yield os.fsencode(inside), file


def _source_id(source: str) -> str:
  return os.path.realpath(source) if source else ''


def _audit_id(path: str) -> str:
  return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ''


def _command(name: str, source: str, data_dir: str) -> str:
  return f'mixdtp prepare {name} --source {source} --data_dir {data_dir}'
