"""A lock on a workdir: two runs would damage each other's checkpoints."""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from mixdtp_jax.runtime import files, hosts


@contextlib.contextmanager
def only_run(workdir: str | os.PathLike) -> Iterator[None]:
  """Holds WORKDIR/run.lock for all hosts while the body runs.

  A workdir that this makes is removed again if the body fails before it has
  written anything. RuntimeError if another run holds the lock, ValueError if
  the workdir of another host is a different folder.
  """
  path = pathlib.Path(workdir, 'run.lock')
  made = [p for p in path.parents if not p.exists()]
  file = hosts.in_turn(lambda: _lock(path) if hosts.is_first() else None)
  try:
    hosts.check_same(
      f'{path.parent}, which all hosts must share,',
      path.read_text() if path.exists() else '',
    )
    yield
  except BaseException:
    if file is not None:
      _remove_empty(path, made)
    raise
  finally:
    if file is not None:
      file.close()


def _remove_empty(lock: pathlib.Path, made: list[pathlib.Path]) -> None:
  """Removes folders that were made, unless there are files in them."""
  if not made or any(p.is_file() for p in made[0].rglob('*') if p != lock):
    return
  lock.unlink(missing_ok=True)
  for folder in (*sorted(made[0].rglob('*'), reverse=True), *made):
    with contextlib.suppress(OSError):
      folder.rmdir()


def _lock(path: pathlib.Path):
  try:
    file = files.lock(path)
  except BlockingIOError as error:
    holder = path.read_text().strip() or 'another process'
    raise RuntimeError(
      f'{path.parent} is in use by {holder}: wait until that run ends or stop '
      'it, or use another workdir'
    ) from error
  # Closed now, so that other hosts see it on a network folder.
  path.write_text(
    f'process {os.getpid()} on {socket.gethostname()}, {time.ctime()}\n'
  )
  return file
