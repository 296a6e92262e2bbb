"""The inspection of one pair: readable, aligned, the right way round?"""

import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from mixdtp_jax.data import images as images_lib
from mixdtp_jax.data import pairs
from mixdtp_jax.data.audit import scenes

_WINDOW = 256  # side of the central part that is aligned, in pixels
_MARGIN = 0.05  # least gain in correlation by which a shift beats none
_BLUR = 8  # pixels; streaks are thinner
_RAIN_SIDE = 32  # cells of the shrunken rain
_NO_RAIN = np.zeros(_RAIN_SIDE**2, np.float16)


class Inspection(NamedTuple):
  """The result for a rainy and a clean image, or for one without a partner."""

  problems: dict[str, str]  # kinds of findings, each with a description
  digests: tuple[bytes, ...] = ()  # of the pixels
  spectra: np.ndarray | None = None  # (2 or 1, N) float32, see scenes.spectrum
  # (1024,) float16 of unit length, a map of the light that rain adds.
  rain: np.ndarray = _NO_RAIN


def inspect(pair: pairs.PairFiles) -> Inspection:
  """Inspects a pair; whatever is wrong with it is a problem, not an error."""
  try:
    images = [
      images_lib.read_image(file, f'{pair.name} ({side})')
      for side, file in pair.images.items()
    ]
  except (OSError, ValueError) as error:
    return Inspection({'unreadable': str(error)})
  digests = tuple(map(_digest, images))
  images = [np.asarray(Image.fromarray(image).convert('L')) for image in images]
  spectra = np.stack([scenes.spectrum(image) for image in images])
  if len(images) == 1:
    return Inspection({}, digests, spectra)
  rainy, clean = images
  try:
    pairs.check_same_size(pair.name, rainy.shape, clean.shape)
  except ValueError as error:
    return Inspection({'size': str(error)}, digests, spectra)
  problems = {}
  (down, right), is_sure = find_shift(rainy, clean)
  moved = (down, right) != (0, 0)
  if moved and is_sure:
    text = f'the clean image is {down} pixels down and {right} right'
    problems = {'misaligned': text}
  # For images that show nothing, such as a night sky, the shift is noise.
  elif moved and spectra.any(axis=1).all() and not scenes.same_scene(*spectra):
    problems = {'unlike': 'the clean image shows another scene'}
  elif is_swapped(rainy, clean):
    problems = {'swapped': 'the streaks are in the clean image'}
  return Inspection(problems, digests, spectra, _rain(rainy, clean))


def _digest(image: np.ndarray) -> bytes:
  content = image.tobytes()
  shape = str(image.shape).encode()
  return hashlib.blake2b(content, digest_size=16, key=shape).digest()


def find_shift(
  rainy: np.ndarray, clean: np.ndarray
) -> tuple[tuple[int, int], bool]:
  """Finds the shift of a clean (H, W) uint8 image against the rainy one.

  This is phase correlation (Kuglin and Hines, The Phase Correlation Image
  Alignment Method, 1975). All frequencies have equal weight, so edges decide,
  which rain leaves in place. It uses the central part, so it finds shifts of up
  to 128 pixels.

  Returns:
    (pixels down, pixels right), and whether the images agree clearly better
    with this shift than without.
  """
  rainy, clean = (_middle(image).astype(np.float32) for image in (rainy, clean))
  window = np.outer(*(np.hanning(side + 2)[1:-1] for side in rainy.shape))
  windowed = [(i - i.mean()) * window for i in (clean, rainy)]
  if not all(image.any() for image in windowed):  # flat images
    return (0, 0), False
  shift, *_ = phase_cross_correlation(*windowed, normalization='phase')
  down, right = map(int, shift)
  edges = _edges(rainy), _edges(clean)
  gain = _agreement(*edges, down, right) - _agreement(*edges, 0, 0)
  return (down, right), bool(gain > _MARGIN)


def is_swapped(rainy: np.ndarray, clean: np.ndarray) -> bool:
  """Returns whether the streaks are in the (H, W) image that is called clean.

  All of three signs in the fine structure must agree. The part of the rainy
  image that linear regression on the clean one does not explain is streaks,
  which are rare and bright: its third moment is positive. That of the clean
  image lacks streaks: its third moment is negative. And the rainy image has
  more fine structure. Mean brightness is no sign, because drawn rain can come
  with a darker sky. Drops on a lens are not streaks and are not recognised.
  """
  rainy, clean = _fine(rainy), _fine(clean)
  both, *powers = (
    max(float(np.mean(product)), 1e-6)
    for product in (rainy * clean, rainy**2, clean**2)
  )
  over_clean = np.mean((rainy - clean * (both / powers[1])) ** 3)
  over_rainy = np.mean((clean - rainy * (both / powers[0])) ** 3)
  return bool(over_clean < 0 < over_rainy and powers[0] < powers[1])


def _middle(image: np.ndarray) -> np.ndarray:
  height, width = (min(side, _WINDOW) for side in image.shape)
  top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
  return image[top : top + height, left : left + width]


def _edges(image: np.ndarray) -> np.ndarray:
  """Computes the negative Laplacian, with zeros at the border."""
  edges = np.zeros_like(image)
  edges[1:-1, 1:-1] = -ndimage.laplace(image)[1:-1, 1:-1]
  return edges


def _agreement(rainy, clean, down: int, right: int) -> float:
  """Computes the correlation of the overlap, for a shift of the clean one."""
  rainy = _overlap(rainy, -down, -right)
  clean = _overlap(clean, down, right)
  length = np.sqrt(np.sum(rainy**2) * np.sum(clean**2))
  return float(np.sum(rainy * clean) / max(length, 1e-6))


def _overlap(image, down: int, right: int) -> np.ndarray:
  rows, columns = (
    slice(max(shift, 0), side + min(shift, 0))
    for shift, side in zip((down, right), image.shape, strict=True)
  )
  return image[rows, columns]


def _fine(image: np.ndarray) -> np.ndarray:
  """Halves an image and removes structures wider than _BLUR pixels."""
  half = _shrunk(Image.fromarray(image.astype(np.float32)), 2)
  coarse = _shrunk(half, _BLUR).resize(half.size, Image.Resampling.BILINEAR)
  fine = np.asarray(half) - np.asarray(coarse)
  return fine - fine.mean()


def _shrunk(image: Image.Image, factor: int) -> Image.Image:
  size = [max(side // factor, 1) for side in image.size]
  return image.resize(size, Image.Resampling.BOX)


def _rain(rainy: np.ndarray, clean: np.ndarray) -> np.ndarray:
  """Maps where rain was added, to tell two rains on one scene apart.

  It compares neighbouring cells, because the overall amount of added light
  depends on the scene. The product of two maps is 0.95 or more for re-encoded
  and resized copies, and 0.55 or less for two rains on one scene of Rain800.
  """
  added = Image.fromarray(rainy.astype(np.float32) - clean)
  cells = added.resize((_RAIN_SIDE,) * 2, Image.Resampling.BOX)
  rain = _edges(np.asarray(cells)).ravel()
  return (rain / max(float(np.linalg.norm(rain)), 1.0)).astype(np.float16)
