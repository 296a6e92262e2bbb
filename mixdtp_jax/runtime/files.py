"""Files: complete or absent, and of formats that this version reads."""

import contextlib
import functools
import hashlib
import json
import math
import os
import pathlib
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import psutil
from absl import logging

try:
  import fcntl
except ImportError:  # on Windows there is no such lock
  fcntl = None  # type: ignore[assignment]


def dump_json(
  content: Mapping[str, Any], path: str | os.PathLike, *, sealed: bool = False
) -> None:
  """Writes an object as JSON; `sealed` adds a digest for `load_json`.

  Infinity and NaN, which JSON lacks, become 'inf', '-inf' and 'nan'.
  """
  safe = _json_safe(content)
  if sealed:
    safe['digest'] = _digest(safe)
  with replacing(path) as temporary, open(temporary, 'w') as file:
    json.dump(safe, file, indent=2, allow_nan=False)
    file.write('\n')


def load_json(path: str | os.PathLike) -> Any:
  """Reads JSON; ValueError if it is none, or has a digest of other content."""
  content = json.loads(pathlib.Path(path).read_bytes())
  if isinstance(content, dict):
    digest = content.pop('digest', None)
    if digest not in (None, _digest(content)):
      raise ValueError('its content is not what was written')
  return content


# What damaged JSON makes its readers raise.
DAMAGED = (
  ArithmeticError,
  AttributeError,
  LookupError,
  RecursionError,
  TypeError,
  ValueError,
)


def _digest(content: Any) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _json_safe(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {str(key): _json_safe(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_json_safe(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def lock(path: pathlib.Path) -> IO[str]:
  """Opens a text file that is locked until it is closed, or the process ends.

  BlockingIOError if another process holds it.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  file = open(path, 'a+')  # noqa: SIM115 - the lock lasts as long as it is open
  try:
    if fcntl is not None:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    raise
  except OSError as error:  # a network folder without locks
    logging.warning(
      '%s cannot be locked (%s): start no second run in it.', path.parent, error
    )
  return file


@contextlib.contextmanager
def locked(folder: pathlib.Path, *, alone: bool = False) -> Iterator[bool]:
  """Locks a folder during the body, and makes it if it is missing.

  Many processes may hold the lock, or one that is `alone`, which does not wait.
  The lock ends with its process. Yields whether it holds, on Windows True.
  """
  folder.mkdir(parents=True, exist_ok=True)
  if fcntl is None:
    yield True
    return
  file = os.open(folder, os.O_RDONLY)
  try:
    how = fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH
    try:
      fcntl.flock(file, how)
      holds = True
    except OSError:  # in use, or a network folder without locks
      holds = False
    yield holds
  finally:
    os.close(file)


def own_folder(folder: pathlib.Path) -> bool:
  """Makes a folder for this user alone, for code that is loaded again.

  Returns whether it is the user's, and nobody else could write into it.
  """
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  if not hasattr(os, 'getuid'):  # Windows, where it lies in the user's own
    return True
  found = folder.stat()
  if found.st_uid != os.getuid() or found.st_mode & 0o022:
    return False
  folder.chmod(0o700)
  return True


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
  """Yields a temporary name to write, which then replaces `path`.

  After an error, `path` is unchanged and the temporary file is gone; an OSError
  names `path`, as when the disk is full. What a killed process of this machine
  began in the folder is removed.
  """
  path = pathlib.Path(path)
  # In a folder of our own, the new file gets the usual permissions.
  with working_folder(path.parent) as folder:
    temporary = os.path.join(folder, path.name)
    try:
      yield temporary
      os.replace(temporary, path)
    except OSError as error:
      if error.errno and error.filename in (None, temporary):
        with contextlib.suppress(AttributeError):  # PyAV's keep their names
          error.filename = str(path)
      raise


@contextlib.contextmanager
def working_folder(
  parent: pathlib.Path, *, clean: bool = True
) -> Iterator[str]:
  """Yields a temporary folder in `parent`, which is made if it is missing.

  If `clean`, those that killed processes of this machine left are removed.
  """
  parent.mkdir(parents=True, exist_ok=True)
  if clean:
    _remove_unfinished(parent.absolute())
  prefix = f'{_writing()}{os.getpid()}-'
  with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as folder:
    yield folder


def _writing() -> str:
  # Another machine may write into the same folder, and has its own processes.
  return f'.writing-{re.sub("[^A-Za-z0-9]", "_", platform.node())}-'


@functools.cache  # once for each folder
def _remove_unfinished(folder: pathlib.Path) -> None:
  for left in folder.glob(f'{_writing()}*-*'):
    if was_left(left):
      shutil.rmtree(left, ignore_errors=True)


def was_left(folder: pathlib.Path) -> bool:
  """Returns whether a working folder is of an ended process of this machine."""
  process = folder.name.removeprefix(_writing()).partition('-')[0]
  return process.isdigit() and not psutil.pid_exists(int(process))


def is_writable(folder: pathlib.Path) -> bool:
  """Returns whether files can be written into a folder, or it can be made."""
  there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
  return there.is_dir() and os.access(there, os.W_OK)


def local_path(path: str | os.PathLike) -> str:
  """Returns a path with ~ expanded; ValueError for a URL or no such user."""
  text = os.path.expanduser(path)
  if text.startswith('~'):
    raise ValueError(
      f'{text}: there is no such user; for a name, write ./{text}'
    )
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]+:/', text):
    raise ValueError(
      f'{text} is a URL, and only folders and files can be used: mount the '
      'bucket (as with gcsfuse) or copy the files, and give the path'
    )
  return text


class NewerFormatError(ValueError):
  """A file was written by a newer version of this package."""


def check_format(path: Any, found: Any, newest: int) -> None:
  """Checks the format number of a file; 0 if it has none, as the first ones.

  NewerFormatError if it is above `newest`, ValueError if it is no such number.
  """
  if type(found) is not int or found < 0:
    raise ValueError(
      f'{path}: format {found!r} is not a format number: the file is damaged'
    )
  if found > newest:
    raise NewerFormatError(
      f'{path}: format {found} was made by a newer version (this one reads up '
      f'to {newest}): update mixdtp_jax'
    )
