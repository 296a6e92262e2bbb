"""Feature maps (H, W, C) in pieces: windows cut from them, results put back."""

import collections
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

_ALIGNMENT = 64  # bytes


class FileMap:
  """A feature map (H, W, C) in a file, of which some rows are in memory.

  It is read and written by slices of rows, and raises OSError if that fails.
  The file has no name in the folder on most systems, and goes even if this
  process is killed.
  """

  def __init__(self, shape: tuple[int, ...], dtype: np.dtype, folder: str):
    """Creates the file."""
    self.shape, self.dtype = shape, np.dtype(dtype)
    self._row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
    # Unbuffered: whole strips of rows are read and written.
    self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

  def __getitem__(self, rows: slice) -> np.ndarray:
    """Reads rows."""
    shape = (rows.stop - rows.start, *self.shape[1:])
    found = np.empty(shape, self.dtype)
    self._file.seek(rows.start * self._row_bytes)
    left = found.view(np.uint8).data.cast('B')
    while left:
      count = self._file.readinto(left)
      if not count:
        raise OSError(f'the scratch file ends before row {rows.stop}')
      left = left[count:]
    return found

  def __setitem__(self, rows: slice, values: np.ndarray) -> None:
    """Writes rows."""
    self._file.seek(rows.start * self._row_bytes)
    left = np.ascontiguousarray(values).view(np.uint8).data.cast('B')
    while left:
      left = left[self._file.write(left) :]

  def close(self) -> None:
    """Deletes the file."""
    self._file.close()


Map = np.ndarray | FileMap


@dataclasses.dataclass(frozen=True)
class Grid:
  """Pieces that cover an image; the last ones reach beyond it."""

  size: tuple[int, int]  # rows and columns of the image
  core: tuple[int, int]  # of a piece without its halo

  def __len__(self) -> int:
    """Returns the number of pieces."""
    (height, width), (rows, columns) = self.size, self.core
    return -(-height // rows) * -(-width // columns)


class Windows:
  """The windows of a map: cores with a halo, and zeros outside of the map.

  They have the values from before a sweep over the pieces, which may write to
  the same map. The map is as large as the grid, or twice, four times, ...
  """

  def __init__(self, source: Map, grid: Grid, halo: int):
    """Starts before the first piece."""
    self._map, self._halo = source, halo
    self._scale = -(-source.shape[0] // grid.size[0])
    self._core = tuple(self._scale * side for side in grid.core)
    channels = source.shape[2]
    self.shape = (*(side + 2 * halo for side in self._core), channels)
    self.dtype = source.dtype
    self._first = -1
    self._below = np.zeros((halo, *source.shape[1:]), source.dtype)

  def go_to(self, row: int) -> None:
    """Goes on to the pieces that begin at this row of the grid."""
    first = row * self._scale
    if self._first == first:
      return
    rows, halo = self._core[0], self._halo
    self._first, self._above = first, self._below
    end = min(first + rows + halo, self._map.shape[0])
    self._body = self._map[first:end]
    kept = self._body[max(rows - halo, 0) : rows]
    self._below = np.concatenate([self._above, kept])[len(kept) :]
    self._left = np.zeros((len(self._body), halo, self.shape[2]), self.dtype)

  def bounds(self, column: int) -> np.ndarray:
    """Returns the first and the end of the rows and columns that exist."""
    top, left = (self._halo - f for f in (self._first, column * self._scale))
    height, width, _ = self._map.shape
    return np.array([top, top + height, left, left + width], np.int32)

  def cut(self, column: int, window: np.ndarray) -> None:
    """Fills the window (h, w, C) whose core begins at a column of the grid."""
    halo, columns = self._halo, self._core[1]
    last = halo + len(self._body)
    _, _, left, right = np.clip(self.bounds(column), 0, self.shape[1])
    begin = column * self._scale - halo + left
    inside, taken = slice(left, right), slice(begin, begin + right - left)
    window[:halo, inside] = self._above[:, taken]
    window[halo:last, inside] = self._body[:, taken]
    window[last:] = window[:, :left] = window[:, right:] = 0
    window[halo:last, :halo] = self._left
    self._left = window[halo:last, columns : columns + halo].copy()


class Target:
  """A map that results are put into, in the order of the pieces."""

  def __init__(self, target: Map, grid: Grid):
    """Starts before the first piece."""
    self._map, self._grid = target, grid
    self._scale = -(-target.shape[0] // grid.size[0])

  def put(self, row: int, column: int, result: np.ndarray) -> None:
    """Takes the result (h, w, C) of the piece at this place of the grid."""
    scale, (_, columns) = self._scale, self._grid.core
    first = row * scale
    if column == 0:
      end = min(first + len(result), self._map.shape[0])
      if isinstance(self._map, np.ndarray):
        self._rows = self._map[first:end]
      else:
        shape = (end - first, *self._map.shape[1:])
        self._rows = np.empty(shape, self._map.dtype)
    part = self._rows[:, column * scale :][:, : result.shape[1]]
    part[:] = result[: part.shape[0], : part.shape[1]]
    is_last = column + columns >= self._grid.size[1]
    if is_last and not isinstance(self._map, np.ndarray):
      self._map[first : first + len(self._rows)] = self._rows


def sweep(
  run: Callable[..., Any],
  sources: Sequence[Windows],
  grid: Grid,
  devices: int,
  threads: futures.Executor,
  at_once: int,
) -> Iterator[tuple[int, int, Any]]:
  """Runs a program on all pieces, one piece on each device at a time.

  `run` maps bounds (devices, 4) and windows (devices, h, w, C) of each source
  to a tuple of arrays (devices, ...). It runs in `threads`, `at_once` times at
  the same time. Yields row and column of each piece, in order, and its results.
  """
  pending: collections.deque[tuple[Any, futures.Future]] = collections.deque()
  (height, width), (rows, columns) = grid.size, grid.core
  every = itertools.product(range(0, height, rows), range(0, width, columns))
  try:
    while places := tuple(itertools.islice(every, devices)):
      if len(pending) == at_once:
        yield from _results(*pending.popleft())
      windows = [_aligned((devices, *s.shape), s.dtype) for s in sources]
      bounds = np.zeros((devices, 4), np.int32)
      for number, (row, column) in enumerate(places):
        for source, window in zip(sources, windows, strict=True):
          source.go_to(row)
          source.cut(column, window[number])
        bounds[number] = sources[0].bounds(column)
      for window in windows:
        window[len(places) :] = 0
      pending.append((places, threads.submit(run, bounds, *windows)))
    while pending:
      yield from _results(*pending.popleft())
  finally:
    # After an error, too, nothing goes on in the background.
    futures.wait([future for _, future in pending])


def _aligned(shape, dtype):
  """Returns an array that JAX on a CPU uses as it is, without a copy."""
  size = int(np.prod(shape)) * np.dtype(dtype).itemsize
  memory = np.empty(size + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  return memory[start : start + size].view(dtype).reshape(shape)


def _results(places, future):
  results = future.result()
  for number, place in enumerate(places):
    yield *place, tuple(result[number] for result in results)
