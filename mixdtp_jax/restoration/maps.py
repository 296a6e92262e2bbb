"""Feature maps (H, W, C) on the host: in memory, or in a scratch file."""

import tempfile

import numpy as np


class Map:
  """A feature map in memory; `rows` and `blank` are views of it."""

  def __init__(self, array: np.ndarray):
    """Takes the array (H, W, C)."""
    self.array = array
    self.shape, self.dtype = array.shape, array.dtype
    self.bytes_in_memory = array.nbytes

  def rows(self, first: int, end: int) -> np.ndarray:
    """Returns the rows first..end, as they are."""
    return self.array[first:end]

  def blank(self, first: int, end: int) -> np.ndarray:
    """Returns an array to fill, which `store` makes those rows."""
    return self.array[first:end]

  def store(self, first: int, rows: np.ndarray) -> None:
    """Makes an array of `blank` the rows from `first` on."""

  def close(self) -> None:
    """Gives the memory back."""
    del self.array


class FileMap(Map):
  """A feature map in a file, of which only a few rows are in memory."""

  bytes_in_memory = 0

  def __init__(self, shape: tuple[int, ...], dtype: np.dtype, folder: str):
    """Creates a file in a folder, for a map (H, W, C).

    It has no name there on most systems, and goes even if this process is
    killed. OSError if it cannot be made.
    """
    self.shape, self.dtype = shape, np.dtype(dtype)
    self._row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
    # Unbuffered: whole strips of rows are read and written.
    self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

  def rows(self, first: int, end: int) -> np.ndarray:
    """Reads the rows first..end."""
    rows = self.blank(first, end)
    self._file.seek(first * self._row_bytes)
    left = rows.view(np.uint8).data.cast('B')
    while left:
      count = self._file.readinto(left)
      if not count:
        raise OSError(f'the scratch file ends before row {end}')
      left = left[count:]
    return rows

  def blank(self, first: int, end: int) -> np.ndarray:
    """Returns an array to fill, which `store` writes."""
    return np.empty((end - first, *self.shape[1:]), self.dtype)

  def store(self, first: int, rows: np.ndarray) -> None:
    """Writes rows from `first` on.

    Raises:
      OSError: the disk is full.
    """
    self._file.seek(first * self._row_bytes)
    left = np.ascontiguousarray(rows).view(np.uint8).data.cast('B')
    while left:
      left = left[self._file.write(left) :]

  def close(self) -> None:
    """Deletes the file."""
    self._file.close()
