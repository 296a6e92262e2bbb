"""How much memory there is, and which feature maps have place in it."""

import contextlib
import ctypes
import os
import pathlib
import shutil
import tempfile

import numpy as np
import psutil

from mixdtp_jax.restoration.maps import FileMap, Map

_CGROUP = pathlib.Path('/sys/fs/cgroup')
# Bytes that the compiler takes at its peak, four programs at once.
_COMPILING = 350 * 2**20


def held() -> int:
  """Returns the bytes of memory that this process holds."""
  return psutil.Process().memory_info().rss


def half_of_free() -> int:
  """Returns what this process holds, and half of what it could have more."""
  free = psutil.virtual_memory().available
  # A container may have less than the machine.
  with contextlib.suppress(OSError, ValueError):
    limit = int((_CGROUP / 'memory.max').read_text())
    free = min(free, limit - int((_CGROUP / 'memory.current').read_text()))
  return held() + free // 2


def check_compiling(budget: int) -> None:
  """Refuses a budget in which no program can be compiled.

  Raises:
    ValueError: this process may have fewer bytes than it needs.
  """
  _check(budget, held() + _COMPILING)


def space_for_maps(budget: int, working: int) -> int:
  """Returns the bytes that are left for feature maps.

  Args:
    budget: bytes that this process may have in all.
    working: bytes that it needs for all else while it computes.

  Raises:
    ValueError: nothing is left.
  """
  least = held() + working
  _check(budget, least)
  return budget - least


def _check(budget: int, least: int) -> None:
  if budget < least:
    raise ValueError(
      f'a memory of {budget / 1e9:.2f} GB is too little: this picture needs '
      f'{least / 1e9:.2f} GB at least; allow more with --memory'
    )


def give_back() -> None:
  """Gives memory that was freed back to the system, where it does not go."""
  with contextlib.suppress(OSError, AttributeError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)  # glibc alone has it


class MapRoom:
  """Feature maps: in memory while there is room, else in scratch files.

  It is a context manager, at whose end no map and no file is left.
  """

  def __init__(self, room: int, scratch: str | os.PathLike | None):
    """Makes no map yet.

    Args:
      room: bytes for maps in memory.
      scratch: folder of scratch files; None for the system's.
    """
    self._room, self._maps = room, []
    self._folder = os.fspath(scratch or tempfile.gettempdir())

  def __enter__(self) -> 'MapRoom':
    """Returns itself."""
    return self

  def __exit__(self, *_) -> None:
    """Closes all maps."""
    for each in self._maps:
      each.close()

  def new(self, shape: tuple[int, ...], dtype: np.dtype) -> Map:
    """Makes a map of some shape (H, W, C), whose values are not set.

    Raises:
      OSError: it needs a scratch file, and the folder has no space for it.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= self._room:
      self._room -= size
      made = Map(np.empty(shape, dtype))
    else:
      self._check_space(size)
      made = FileMap(shape, dtype, self._folder)
    self._maps.append(made)
    return made

  def drop(self, dropped: Map) -> None:
    """Gives a map's room back."""
    self._room += dropped.bytes_in_memory
    self._maps.remove(dropped)
    dropped.close()

  def _check_space(self, size: int) -> None:
    free = shutil.disk_usage(self._folder).free
    if size > free:
      raise OSError(
        f'{self._folder}: a scratch file needs {size / 1e9:.1f} GB and '
        f'{free / 1e9:.1f} GB are free; name another folder with --scratch, or '
        'allow more with --memory'
      )
