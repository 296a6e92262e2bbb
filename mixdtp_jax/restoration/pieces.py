"""Images in pieces of one shape: windows cut from maps, results put back."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from mixdtp_jax.restoration.maps import Map

_ALIGNMENT = 64  # bytes


@dataclasses.dataclass(frozen=True)
class Grid:
  """Pieces that cover an image; the last ones reach beyond it.

  Attributes:
    size: rows and columns of the image.
    core: rows and columns of a piece.
  """

  size: tuple[int, int]
  core: tuple[int, int]

  def __len__(self) -> int:
    """Returns the number of pieces."""
    (height, width), (rows, columns) = self.size, self.core
    return -(-height // rows) * -(-width // columns)


class Windows:
  """The windows of a map: cores with a halo, of which the rest is zero.

  They have the values from before a sweep over the pieces, which may write to
  the same map.
  """

  def __init__(self, source: Map, grid: Grid, halo: int):
    """Cuts pieces of `grid.core` times what the map is larger than the grid."""
    self._map, self._halo = source, halo
    self._scale = -(-source.shape[0] // grid.size[0])
    self._core = tuple(self._scale * side for side in grid.core)
    channels = source.shape[2]
    self.shape = (*(side + 2 * halo for side in self._core), channels)
    self.dtype = source.dtype
    self._first = -1
    self._above: np.ndarray | None = None
    self._below: np.ndarray | None = None
    self._left: np.ndarray | None = None

  def go_to(self, row: int) -> None:
    """Goes on to the pieces that begin at this row of the grid."""
    if self._first == row * self._scale:
      return
    self._first = row * self._scale
    rows, halo = self._core[0], self._halo
    end = min(self._first + rows + halo, self._map.shape[0])
    self._body = self._map.rows(self._first, end)
    self._above, self._left = self._below, None
    kept = self._body[max(rows - halo, 0) : rows]
    if rows < halo and self._above is not None:
      kept = np.concatenate([self._above, kept])[-halo:]
    self._below = kept.copy()

  def bounds(self, column: int) -> np.ndarray:
    """Returns the first and the end of the rows and columns that exist."""
    top, left = (self._halo - f for f in (self._first, column * self._scale))
    height, width, _ = self._map.shape
    return np.array([top, top + height, left, left + width], np.int32)

  def cut(self, column: int, window: np.ndarray) -> None:
    """Fills the window (h, w, C) whose core begins at a column of the grid."""
    halo, columns = self._halo, self._core[1]
    _, _, left, right = np.clip(self.bounds(column), 0, self.shape[1])
    begin = column * self._scale - halo + left
    inside, taken = slice(left, right), slice(begin, begin + right - left)
    above = self._body[:0] if self._above is None else self._above
    first, last = halo - len(above), halo + len(self._body)
    window[first:halo, inside] = above[:, taken]
    window[halo:last, inside] = self._body[:, taken]
    window[:first] = window[last:] = 0
    window[:, :left] = window[:, right:] = 0
    if halo and self._left is not None:
      window[halo:last, :halo] = self._left
    self._left = window[halo:last, columns : columns + halo].copy()


class Target:
  """Where the results of a sweep are put together to a map."""

  def __init__(self, target: Map, grid: Grid):
    """Takes results in the order of the pieces."""
    self._map, self._grid = target, grid
    self._scale = -(-target.shape[0] // grid.size[0])

  def put(self, row: int, column: int, result: np.ndarray) -> None:
    """Takes the result (h, w, C) of the piece at this place of the grid."""
    scale, (_, columns) = self._scale, self._grid.core
    first = row * scale
    if column == 0:
      end = min(first + len(result), self._map.shape[0])
      self._rows = self._map.blank(first, end)
    part = self._rows[:, column * scale :][:, : result.shape[1]]
    part[:] = result[: part.shape[0], : part.shape[1]]
    if column + columns >= self._grid.size[1]:
      self._map.store(first, self._rows)


def sweep(
  run: Callable[..., Any],
  sources: Sequence[Windows],
  grid: Grid,
  devices: int,
  threads: futures.Executor,
  at_once: int,
) -> Iterator[tuple[int, int, Any]]:
  """Runs a program on all pieces, in turn on as many as there are devices.

  Args:
    run: (bounds (N, 4), windows (N, h, w, C)...) -> a tuple of arrays (N, ...)
      with N the number of devices.
    sources: the maps that are read.
    grid: the pieces.
    devices: how many there are.
    threads: `run` is called in them.
    at_once: calls of `run` that may be under way.

  Yields:
    Row and column on the grid of each piece, in order, and its results.
  """
  pending: collections.deque[tuple[Any, futures.Future]] = collections.deque()
  try:
    for places in _groups(grid, devices):
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


def _groups(grid: Grid, size: int) -> Iterator[tuple[tuple[int, int], ...]]:
  rows = range(0, grid.size[0], grid.core[0])
  columns = range(0, grid.size[1], grid.core[1])
  places = itertools.product(rows, columns)
  return iter(lambda: tuple(itertools.islice(places, size)), ())


def _results(places, future):
  results = future.result()
  for number, place in enumerate(places):
    yield *place, tuple(result[number] for result in results)
