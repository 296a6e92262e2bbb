"""How much memory there is, and which feature maps have room in it."""

import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import psutil

from mixdtp_jax.ops.cpu import build
from mixdtp_jax.restoration.pieces import FileMap, Grid, Map
from mixdtp_jax.restoration.steps import FINAL, MapSpec, Step

_ROOT = pathlib.Path('/')

# Bytes: while programs are compiled; for the rest of the process's life; and
# those that are free, but not given back by the C library.
_COMPILING, _COMPILED, _KEPT = (2**20 * size for size in (180, 100, 100))
# What a process holds differs by this from run to run, in bytes.
_VARIES = 40 * 2**20
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
  """Returns what this process holds, and half of the free memory."""
  free = min([psutil.virtual_memory().available, *_left_by_groups()])
  return held() + max(free, 0) // 2


def _left_by_groups() -> Iterator[int]:
  """Yields the bytes that each control group of this process leaves to it.

  A container may have less than the machine, which psutil does not know.
  """
  with contextlib.suppress(OSError, ValueError):
    for line in (_ROOT / 'proc/self/cgroup').read_text().splitlines():
      _, controllers, path = line.split(':', 2)
      top, names = _ROOT / 'sys/fs/cgroup', ('max', 'current')
      if 'memory' in controllers.split(','):  # version 1
        top, names = top / 'memory', ('limit_in_bytes', 'usage_in_bytes')
      elif controllers:
        continue
      group = top / path.lstrip('/')
      for folder in (group, *group.parents):
        if folder.is_relative_to(top):
          yield from _left_by_group(*(folder / f'memory.{n}' for n in names))


def _left_by_group(limit: pathlib.Path, used: pathlib.Path) -> Iterator[int]:
  # It may have no limit, or a container may not see it.
  with contextlib.suppress(OSError, ValueError):
    left = int(limit.read_text()) - int(used.read_text())
    # What was read of files is given up when memory is needed.
    stat = limit.with_name('memory.stat').read_text()
    found = re.findall(r'inactive_file (\d+)', stat)
    yield left + int(found[-1] if found else 0)


def room_for_maps(
  plan: Sequence[tuple[Step, Grid]],
  size: tuple[int, int],
  *,
  at_once: int,
  memory: int,
  compiled: bool,
  others: int,
  beside: int = 0,
) -> int:
  """Returns the bytes that feature maps may take of the memory.

  Args:
    plan: the steps of the network, and the pieces of each.
    size: (H, W) of the image, with its padding.
    at_once: pieces that are computed at the same time.
    memory: bytes that this process may hold in all.
    compiled: whether all programs are.
    others: bytes of all else that this process holds meanwhile.
    beside: bytes that are left free, but nothing is refused for them.

  Raises:
    ValueError: the memory is too small, even with all maps in files.
  """
  always = others + 2 * bytes_of(FINAL, size)  # and the padded image
  always += _KEPT + at_once * max(_piece(*pair) for pair in plan)
  if not compiled:
    always = max(always + _COMPILED, others + _COMPILING)
  most = _most_at_once([step for step, _ in plan], size)
  if always + most + beside <= memory:
    return most
  # Rows of maps in files are read and written for a row of pieces at a time.
  always += min(most, max(_rows(*pair, size) for pair in plan))
  if always > memory:
    raise ValueError(
      f'this image needs at least {_megabytes(always + _VARIES)} MB of memory '
      f'and may use {_megabytes(memory)} MB: allow more with --memory'
    )
  return max(memory - always - beside, 0)


def bytes_of(spec: MapSpec, size: tuple[int, int]) -> int:
  """Returns the bytes of a whole map of an image of this size."""
  height, width = (side >> spec.level for side in size)
  return height * width * spec.channels * np.dtype(spec.dtype).itemsize


def _megabytes(number: int) -> int:
  return -(-number // 10**6)


def _piece(step: Step, grid: Grid) -> int:
  rows, columns = (side + 2 * step.halo for side in grid.core)
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


class MapRoom(dict[MapSpec, Map]):
  """Feature maps of an image: in memory while there is room, else in files.

  What is missing is made, without values. That raises OSError if it needs a
  scratch file, and the folder has no space for it. Maps that are put into it
  take no room.
  """

  def __init__(
    self, size: tuple[int, int], room: int, scratch: str | os.PathLike | None
  ):
    """Takes the bytes for maps, and the folder of scratch files, if any."""
    super().__init__()
    self._size, self._room = size, room
    self._taken: dict[MapSpec, int] = {}
    self._scratch = scratch

  def __missing__(self, spec: MapSpec) -> Map:
    """Makes a map."""
    shape = *(side >> spec.level for side in self._size), spec.channels
    needed = bytes_of(spec, self._size)
    if needed <= self._room:
      self._taken[spec] = needed
      self._room -= needed
      return self.setdefault(spec, np.empty(shape, spec.dtype))
    folder = os.fspath(self._scratch or _scratch_folder())
    free = shutil.disk_usage(folder).free
    if needed > free:
      raise OSError(
        f'{folder}: a scratch file needs {_megabytes(needed)} MB and '
        f'{free // 10**6} MB are free; name another folder with --scratch, or '
        'allow more with --memory'
      )
    return self.setdefault(spec, FileMap(shape, np.dtype(spec.dtype), folder))

  def drop(self, specs: Iterable[MapSpec]) -> None:
    """Drops maps, if they are there, and gives their room back."""
    for spec in specs:
      self._room += self._taken.pop(spec, 0)
      dropped = self.pop(spec, None)
      if not isinstance(dropped, np.ndarray | None):
        dropped.close()

  def close(self) -> None:
    """Drops all maps."""
    self.drop(list(self))


def _scratch_folder() -> str:
  """Returns the user's cache folder, as /tmp often lies in memory."""
  if 'TMPDIR' not in os.environ:
    with contextlib.suppress(OSError, RuntimeError):
      folder = build.cache_folder()
      folder.mkdir(mode=0o700, parents=True, exist_ok=True)
      if os.access(folder, os.W_OK | os.X_OK):
        return os.fspath(folder)
  return tempfile.gettempdir()


def give_back() -> None:
  """Returns freed memory to the system, where the C library keeps it."""
  with contextlib.suppress(OSError, AttributeError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)  # glibc alone has it
