"""Windows of maps, results put back, and maps in files."""

import concurrent.futures

import numpy as np
import pytest

from mixdtp_jax.restoration.pieces import FileMap, Grid, Target, Windows, sweep


def made(kind, array, folder):
  if kind == 'memory':
    return array.copy()
  written = FileMap(array.shape, array.dtype, folder)
  written[0 : len(array)] = array
  return written


def box_sum(array):
  padded = np.pad(array, ((2, 2), (2, 2), (0, 0)))
  height, width, _ = array.shape
  return sum(
    padded[r : r + height, c : c + width] for r in range(5) for c in range(5)
  )


@pytest.mark.parametrize('kind', ['memory', 'file'])
@pytest.mark.parametrize('devices', [1, 3])
@pytest.mark.parametrize(
  ('size', 'core'),
  [((1, 1), (4, 4)), ((9, 14), (4, 5)), ((8, 3), (2, 2)), ((5, 20), (7, 4))],
)
def test_a_map_is_written_in_place(kind, devices, size, core, tmp_path):
  array = np.random.default_rng(0).integers(9, size=(*size, 3)).astype('f')
  mapped = made(kind, array, tmp_path)
  grid, bounds_seen = Grid(size, core), []

  def run(bounds, windows):
    bounds_seen.extend(bounds)
    return [np.stack([box_sum(w)[2:-2, 2:-2] for w in windows])]

  target = Target(mapped, grid)
  with concurrent.futures.ThreadPoolExecutor(2) as threads:
    for row, column, results in sweep(
      run,
      [Windows(mapped, grid, halo=2)],
      grid,
      devices=devices,
      threads=threads,
      at_once=2,
    ):
      target.put(row, column, results[0])
  np.testing.assert_array_equal(mapped[0 : size[0]], box_sum(array))
  top, bottom, left, right = bounds_seen[0]
  assert (top, bottom, left, right) == (2, 2 + size[0], 2, 2 + size[1])


@pytest.mark.parametrize('halo', [0, 1, 6])
def test_a_finer_map_has_larger_windows(halo):
  array = np.arange(24 * 16.0).reshape(24, 16, 1)
  grid = Grid((12, 8), (5, 3))
  windows = Windows(array, grid, halo)
  padded = np.pad(array, ((halo, 20), (halo, 20), (0, 0)))
  for row in range(0, 12, 5):
    windows.go_to(row)
    for column in range(0, 8, 3):
      window = np.full(windows.shape, np.nan)
      windows.cut(column, window)
      height, width, _ = window.shape
      expected = padded[2 * row :][:height, 2 * column :][:, :width]
      np.testing.assert_array_equal(window, expected)


def test_an_error_of_a_piece_is_raised():
  def run(bounds, windows):
    raise FloatingPointError

  grid = Grid((4, 4), (2, 2))
  with concurrent.futures.ThreadPoolExecutor(2) as threads:
    windows = [Windows(np.zeros((4, 4, 1)), grid, 0)]
    found = sweep(run, windows, grid, devices=1, threads=threads, at_once=2)
    with pytest.raises(FloatingPointError):
      list(found)


def test_a_file_keeps_any_dtype(tmp_path):
  import ml_dtypes

  array = np.arange(24).reshape(4, 3, 2).astype(ml_dtypes.bfloat16)
  mapped = made('file', array, tmp_path)
  np.testing.assert_array_equal(mapped[1:3], array[1:3])
  mapped.close()
  assert not list(tmp_path.iterdir())
