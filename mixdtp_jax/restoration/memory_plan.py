"""How much memory there is, and which feature maps have room in it."""

import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import psutil

from mixdtp_jax.restoration.maps import FileMap, Map
from mixdtp_jax.restoration.pieces import Grid
from mixdtp_jax.restoration.steps import FINAL, MapSpec, Step

_CGROUP = pathlib.Path('/sys/fs/cgroup')

# Bytes: while programs are compiled; for the rest of the process's life; and
# those that are free, but not given back by the C library.
_COMPILING, _COMPILED, _KEPT = (2**20 * size for size in (180, 100, 100))
# What a piece takes, as multiples of a window of as many channels as the step
# has; in a block, the feed-forward is wider than that.
_WINDOWS, _WINDOWS_OF_BLOCK = 6, 16


def held() -> int:
  """Returns the bytes of memory that this process holds."""
  return psutil.Process().memory_info().rss


def most_held() -> int | None:
  """Returns the most bytes that this process ever held; None if unknown."""
  with contextlib.suppress(OSError):
    status = pathlib.Path('/proc/self/status').read_text()
    if found := re.search(r'VmHWM:\s*(\d+)', status):
      return 1024 * int(found[1])
  try:
    import resource
  except ImportError:
    # Windows alone has it.
    return getattr(psutil.Process().memory_info(), 'peak_wset', None)
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def half_of_free() -> int:
  """Returns what this process holds, and half of what is free besides."""
  free = psutil.virtual_memory().available
  # A container may have less than the machine.
  with contextlib.suppress(OSError, ValueError):
    limit = int((_CGROUP / 'memory.max').read_text())
    free = min(free, limit - int((_CGROUP / 'memory.current').read_text()))
  return held() + max(free, 0) // 2


def room_for_maps(
  steps: Sequence[Step],
  grids: Sequence[Grid],
  size: tuple[int, int],
  *,
  at_once: int,
  memory: int,
  compiled: bool,
  others: int,
) -> int:
  """Returns the bytes that feature maps may take of the memory.

  Args:
    steps: of the network.
    grids: the pieces of each step.
    size: rows and columns of the image, with its padding.
    at_once: pieces that are computed at the same time.
    memory: bytes that this process may hold in all.
    compiled: whether all programs are.
    others: bytes of all else that this process holds meanwhile.

  Raises:
    ValueError: the memory is too small, even with all maps in files.
  """
  pairs = list(zip(steps, grids, strict=True))
  always = others + 2 * bytes_of(FINAL, size)  # and the padded image
  always += _KEPT + at_once * max(_piece(*pair) for pair in pairs)
  if not compiled:
    always = max(always + _COMPILED, others + _COMPILING)
  most = _most_at_once(steps, size)
  if always + most <= memory:
    return most
  # Rows of maps in files are read and written for a row of pieces at a time.
  always += max(_rows(*pair, size) for pair in pairs)
  if always > memory:
    raise ValueError(
      f'this image needs at least {_megabytes(always)} MB of memory and may '
      f'use {_megabytes(memory)} MB: allow more with --memory'
    )
  return memory - always


def bytes_of(spec: MapSpec, size: tuple[int, int]) -> int:
  """Returns the bytes of a whole map of an image of this size."""
  height, width = (side >> spec.level for side in size)
  return height * width * spec.channels * np.dtype(spec.dtype).itemsize


def _megabytes(number: int) -> int:
  return -(-number // 10**6)


def _piece(step: Step, grid: Grid) -> int:
  halo = max(halo for _, halo in step.sources)
  rows, columns = (side + 2 * halo for side in grid.core)
  times = _WINDOWS_OF_BLOCK if step.mixes else _WINDOWS
  return rows * columns * step.width * 4 * times


def _rows(step: Step, grid: Grid, size: tuple[int, int]) -> int:
  """Returns the bytes of a row of pieces of all maps of a step."""
  height = size[0] >> step.level
  total = 0
  for spec, halo in (*step.sources, *((spec, 0) for spec in step.targets)):
    rows = min(grid.core[0] + 2 * halo, height)
    total += bytes_of(spec, size) * rows // height
  return total


def _most_at_once(steps: Sequence[Step], size: tuple[int, int]) -> int:
  """Returns the bytes of the maps that are there at the same time."""
  live: dict[MapSpec, int] = {}
  most = 0
  for step in steps:
    live |= {spec: bytes_of(spec, size) for spec in step.targets}
    most = max(most, sum(live.values()) - live.get(FINAL, 0))
    for spec in step.frees:
      live.pop(spec, None)
  return most


class MapRoom:
  """Feature maps: in memory while there is room, else in scratch files.

  It is a context manager, at whose end no map and no file is left.
  """

  def __init__(self, room: int, scratch: str | os.PathLike | None):
    """Takes the bytes for maps, and the folder of scratch files, if any."""
    self._room = room
    self._maps: dict[MapSpec, Map] = {}
    self._folder = os.fspath(scratch or tempfile.gettempdir())

  def __enter__(self) -> 'MapRoom':
    """Returns itself."""
    return self

  def __exit__(self, *_) -> None:
    """Drops all maps."""
    self.drop(list(self._maps))

  def __getitem__(self, spec: MapSpec) -> Map:
    """Returns a map that is there."""
    return self._maps[spec]

  def add(self, spec: MapSpec, made: Map) -> None:
    """Takes a map whose memory is not of this room."""
    made.bytes_in_memory = 0
    self._maps[spec] = made

  def get(self, spec: MapSpec, size: tuple[int, int]) -> Map:
    """Returns a map of an image; makes one without values if it is missing.

    Raises:
      OSError: it needs a scratch file, and the folder has no space for it.
    """
    if spec not in self._maps:
      self._maps[spec] = self._made(spec, size)
      self._room -= self._maps[spec].bytes_in_memory
    return self._maps[spec]

  def drop(self, specs: Iterable[MapSpec]) -> None:
    """Drops maps, if they are there, and gives their room back."""
    for spec in specs:
      if dropped := self._maps.pop(spec, None):
        self._room += dropped.bytes_in_memory
        dropped.close()

  def _made(self, spec, size) -> Map:
    shape = *(side >> spec.level for side in size), spec.channels
    if bytes_of(spec, size) <= self._room:
      return Map(np.empty(shape, spec.dtype))
    self._check_space(bytes_of(spec, size))
    return FileMap(shape, spec.dtype, self._folder)

  def _check_space(self, size: int) -> None:
    free = shutil.disk_usage(self._folder).free
    if size > free:
      raise OSError(
        f'{self._folder}: a scratch file needs {_megabytes(size)} MB and '
        f'{free // 10**6} MB are free; name another folder with --scratch, or '
        'allow more with --memory'
      )


def give_back() -> None:
  """Returns freed memory to the system, where the C library keeps it."""
  with contextlib.suppress(OSError, AttributeError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)  # glibc alone has it
