"""Images of the same scene, with any rain on it.

A perceptual hash in two steps: the signs of the lowest 8x8 coefficients of the
cosine transform of 32x32 cells are 63 bits (pHash: Zauner, Implementation and
Benchmarking of Perceptual Image Hash Functions, 2010), which find candidates
cheaply; these are compared by correlation of coarse, then of finer structure.
Rain is thin and bright: shrinking takes the darker pixels of each cell, and low
frequencies contain little of the rest.

Thresholds were chosen on the 1000 pairs of Rain100L and Rain800. A photograph
and its rainy version differ in at most 14 bits, and have correlations of at
least 0.80 and 0.63 (0.75 except for one). Photographs of different places have
a first correlation of at most 0.66, and a second of at most 0.45 if the first
is above 0.5. Re-encoding and resizing change less than rain; cropping by 2 %
changes as much. An image with almost no content, such as blue sky, is
recognised only if the copy is exact.
"""

import numpy as np
from PIL import Image
from scipy import fft
from scipy.sparse import coo_array, csgraph

_SIDE = 32  # cells of the shrunken image, each of 4x4 samples
_KEPT = 16  # frequencies in each direction that are compared
_HASHED = 8  # frequencies in each direction that are hashed
_MOST_BITS = 18  # most differing bits of candidates
_COARSE = 0.73  # least correlation of one scene below frequency 10
_FINE = 0.7  # least correlation of one scene at radial frequencies 6 to 16
_FLAT = 1.0  # standard deviation in gray levels below which an image is flat
_ROWS = 32  # rows of the table of differing bits that are in memory at a time


_RADIUS = np.hypot(*np.ogrid[:_KEPT, :_KEPT])
# Photographs have less energy at high frequencies; these powers compensate, as
# far as rain allows. The mean has weight zero.
_COARSE_WEIGHTS = _RADIUS[:10, :10] ** 1.5
_FINE_BAND = (_RADIUS >= 6) & (_RADIUS < 16)
_SPLIT = _COARSE_WEIGHTS.size


def spectrum(luma: np.ndarray) -> np.ndarray:
  """Computes the part of a (H, W) uint8 image that is compared.

  Returns:
    (N,) float32: coarse, then fine structure, each of unit length, so that a
    product of two is a correlation. Zero, which resembles nothing, for a flat
    image.
  """
  samples = Image.fromarray(luma).resize((4 * _SIDE,) * 2, Image.Resampling.BOX)
  split = np.asarray(samples, np.float64).reshape(_SIDE, 4, _SIDE, 4)
  cells = split.swapaxes(1, 2).reshape(_SIDE, _SIDE, 16)
  dark = np.partition(cells, 4, axis=-1)[..., 4]
  low = fft.dctn(dark, norm='ortho')[:_KEPT, :_KEPT]
  coarse = (low[:10, :10] * _COARSE_WEIGHTS).ravel()
  fine = (low * _RADIUS)[_FINE_BAND]
  bands = [band / max(np.linalg.norm(band), 1e-6) for band in (coarse, fine)]
  return np.concatenate(bands).astype(np.float32) * (dark.std() >= _FLAT)


def same_scene(spectra: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns whether spectra (..., N) show the same scenes: (...) bool."""
  product = spectra * others
  coarse = product[..., :_SPLIT].sum(-1)
  return (coarse >= _COARSE) & (product[..., _SPLIT:].sum(-1) >= _FINE)


def group(spectra: np.ndarray) -> np.ndarray:
  """Numbers the scenes that spectra (M, N) show: (M,) integers.

  It compares all with all: two seconds for 20,000 images, growing with the
  square. Images that are linked through others are one scene, too.
  """
  hashes = _hashes(spectra)
  links = [np.zeros((2, 0), int)]
  for start in range(0, len(hashes), _ROWS):
    bits = hashes[start : start + _ROWS, None] ^ hashes[None, start:]
    pairs = np.stack(np.nonzero(np.bitwise_count(bits) <= _MOST_BITS))
    pairs = pairs[:, pairs[0] < pairs[1]] + start
    links.append(pairs[:, same_scene(*spectra[pairs])])
  return components(np.concatenate(links, axis=1), len(spectra))


def components(links: np.ndarray, count: int) -> np.ndarray:
  """Numbers the groups of things that links (2, L) connect: (count,)."""
  graph = coo_array((np.ones(links.shape[1]), tuple(links)), (count, count))
  return csgraph.connected_components(graph, directed=False)[1]


def _hashes(spectra: np.ndarray) -> np.ndarray:
  """Returns the signs of the lowest coefficients as bits: (N,) uint64."""
  low = spectra[:, :_SPLIT].reshape(-1, 10, 10)[:, :_HASHED, :_HASHED]
  signs = low.reshape(-1, _HASHED * _HASHED) > 0
  return np.packbits(signs, axis=1).view(np.uint64)[:, 0]
