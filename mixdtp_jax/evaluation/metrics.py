"""PSNR and SSIM under the five protocols of the deraining literature.

The same images get scores more than 1 dB apart under different protocols, so a
number means nothing without its protocol. `PROTOCOLS` maps a protocol's name to
a function of restored and clean images, both (B, H, W, 3) float in [0, 1]:

  rgb      float RGB clamped to [0, 1], not rounded. SSIM per channel on the
           whole image, with zeros around it. The MixDTPNet repository's.
  rgb8     RGB rounded to uint8. SSIM per channel on the valid region, as
           BasicSR computes it for colour images. PromptIR and AdaIR report
           the same PSNR without the rounding; their SSIM has scikit-image's
           default 7x7 uniform window and is not comparable.
  y        uint8 RGB, then MATLAB's rgb2ycbcr rounded to uint8. SSIM on the
           valid region. Restormer's script.
  y_float  uint8 RGB, then luma without rounding. SSIM by Wang's ssim.m, which
           first shrinks images of 384 pixels and more. The scripts of PReNet
           and RCDNet, for images that were rounded to uint8.
  prenet   y_float, with the restored image truncated to uint8 instead of
           rounded, as PReNet's test script saves it.

Every SSIM has an 11x11 Gaussian window of sigma 1.5, K = (0.01, 0.03) and
weighted population statistics. "Valid region" means that only windows inside
the image count; both sides must be at least 11 pixels. The PSNR of identical
images is inf. A restored image that is not finite scores nan. A data set's PSNR
and SSIM are the means over its images.

Colours and errors are computed exactly on the host, and SSIM on the device in
tiles of one shape, so that images of all sizes share one compiled program.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixdtp_jax.ops.ssim import WINDOW, check_shapes, ssim_map

# Windows on each side of a tile, and tiles that are computed at once.
_TILE, _TILES = 128, 8


class Score(NamedTuple):
  """PSNR in dB and SSIM: arrays (B,) for a batch, floats for one image."""

  psnr: Any
  ssim: Any


Protocol = Callable[[np.ndarray, np.ndarray], Score]


def _psnr(x: np.ndarray, y: np.ndarray, peak: float) -> np.ndarray:  # (B,)
  squares = np.square(np.subtract(x, y, dtype=np.float64)).mean((1, 2, 3))
  with np.errstate(divide='ignore'):
    return -10 * np.log10(squares / peak**2)


def _ssim(
  x: np.ndarray, y: np.ndarray, padding: int, peak: float = 1
) -> np.ndarray:
  """Computes `ops.ssim.ssim` of images (B, H, W, C) of any size, float64 (B,).

  `padding` are pixels of zeros around them: 0 leaves windows inside alone.
  """
  if min(x.shape[1:3]) + 2 * padding < WINDOW:
    raise ValueError(
      f'an image of {x.shape[2]}x{x.shape[1]} pixels: SSIM needs sides of at '
      f'least {WINDOW} pixels; protocol rgb does not'
    )
  planes = np.moveaxis(np.stack([x, y]), 4, 2).astype(np.float32) / peak
  planes = planes.reshape(2, -1, *x.shape[1:3])
  levels = planes.mean((2, 3), dtype=np.float64).astype(np.float32)
  sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
  # Against rounding, as in `ssim`.
  planes = np.pad(planes, sides) - levels[..., None, None]
  height, width = (side - WINDOW + 1 for side in planes.shape[2:])
  corners = [range(0, side, _TILE) for side in (height, width)]
  places = list(itertools.product(range(planes.shape[1]), *corners))
  found = []
  for start in range(0, len(places), _TILES):
    side = _TILE + WINDOW - 1
    tiles = np.zeros((2, _TILES, side, side), np.float32)
    of_tiles = np.zeros((2, _TILES, 1, 1), np.float32)
    sizes = np.zeros((2, _TILES), np.int32)
    for i, (plane, top, left) in enumerate(places[start : start + _TILES]):
      cut = planes[:, plane, top : top + side, left : left + side]
      tiles[:, i, : cut.shape[1], : cut.shape[2]] = cut
      of_tiles[:, i, 0, 0] = levels[:, plane]
      sizes[:, i] = height - top, width - left
    arguments = (tiles, of_tiles, sizes)
    found.append(_sums(*jax.device_put(arguments, jax.local_devices()[0])))
  sums = np.concatenate(jax.device_get(found))[: len(places)]
  sums = sums.astype(np.float64).reshape(len(x), -1).sum(1)
  return sums / (height * width * x.shape[3])


@jax.jit
def _sums(tiles: jax.Array, levels: jax.Array, sizes: jax.Array) -> jax.Array:
  """Sums the SSIM of those windows of each tile that exist: float32 (tiles,).

  Args:
    tiles: (2, tiles, side, side) float32, x and y as `ssim_map` takes them.
    levels: likewise.
    sizes: (2, tiles): rows and columns of windows that exist.
  """
  rows, columns = sizes[..., None] > jnp.arange(_TILE)
  exist = rows[:, :, None] & columns[:, None, :]
  return jnp.where(exist, ssim_map(*tiles, *levels), 0).sum((1, 2))


def _round_to_uint8(images: np.ndarray) -> np.ndarray:
  return np.round(255 * np.clip(images, 0, 1)).astype(np.int32)


def _truncate_to_uint8(images: np.ndarray) -> np.ndarray:
  # In float32, 255 * (k / 255) can be just below k, so an image from a uint8
  # file would lose a gray level. 1e-4 is above that error (at most 3e-5), and
  # changes one in 10,000 other values.
  return np.floor(255 * np.clip(images, 0, 1) + 1e-4).astype(np.int32)


# MATLAB's rgb2ycbcr: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 for
# uint8. It is computed in integers, because float32 would round wrongly: Y has
# steps of 1.2e-5, float32 near 235 has steps of 1.5e-5.
_LUMA_WEIGHTS = (65_481, 128_553, 24_966)
_LUMA_SCALE = 255_000


def _scaled_luma(rgb: np.ndarray) -> np.ndarray:
  """Computes 255,000 (Y - 16), int32 (B, H, W, 1), of int32 RGB in 0..255."""
  red, green, blue = (
    rgb[..., i, None] * weight for i, weight in enumerate(_LUMA_WEIGHTS)
  )
  return red + green + blue


def _shrink(images: np.ndarray) -> np.ndarray:
  """Shrinks images (B, H, W, C) as Wang's ssim.m does.

  f = max(1, round(min(H, W) / 256)), with halves rounded away from zero. The
  result is the f x f mean with symmetric borders at every f-th pixel.
  """
  batch, height, width, channels = images.shape
  f = max(1, (min(height, width) + 128) // 256)
  # imfilter centres an even window on the first of its two middle pixels.
  before, after = (f - 1) // 2, f // 2
  border = ((0, 0), (before, after), (before, after), (0, 0))
  images = np.pad(images, border, mode='symmetric')
  rows, columns = math.ceil(height / f), math.ceil(width / f)
  images = images[:, : rows * f, : columns * f]
  return images.reshape(batch, rows, f, columns, f, channels).mean((2, 4))


def _rgb(restored: np.ndarray, clean: np.ndarray) -> Score:
  restored, clean = np.clip(restored, 0, 1), np.clip(clean, 0, 1)
  return Score(_psnr(restored, clean, 1), _ssim(restored, clean, WINDOW // 2))


def _rgb8(restored: np.ndarray, clean: np.ndarray) -> Score:
  x, y = _round_to_uint8(restored), _round_to_uint8(clean)
  return Score(_psnr(x, y, 255), _ssim(x, y, 0, peak=255))


def _y(restored: np.ndarray, clean: np.ndarray) -> Score:
  x, y = (
    16 + (_scaled_luma(_round_to_uint8(rgb)) + _LUMA_SCALE // 2) // _LUMA_SCALE
    for rgb in (restored, clean)
  )
  return Score(_psnr(x, y, 255), _ssim(x, y, 0, peak=255))


def _y_float(
  quantise: Callable[[np.ndarray], np.ndarray],
  restored: np.ndarray,
  clean: np.ndarray,
) -> Score:
  x, y = _scaled_luma(quantise(restored)), _scaled_luma(_round_to_uint8(clean))
  psnr = _psnr(x, y, 255 * _LUMA_SCALE)
  x, y = (_shrink(16 + luma / _LUMA_SCALE) for luma in (x, y))
  return Score(psnr, _ssim(x, y, 0, peak=255))


def _checked(protocol: Protocol) -> Protocol:
  """Makes a protocol score nan where restored pixels are not finite."""

  def score(restored: np.ndarray, clean: np.ndarray) -> Score:
    check_shapes(restored, clean)
    finite = np.isfinite(restored).all((1, 2, 3))
    # Rounding to integers would hide a nan.
    scores = protocol(np.nan_to_num(restored), clean)
    return Score(*(np.where(finite, x, np.nan) for x in scores))

  return score


# Each maps restored and clean images to a Score of arrays (B,), float64.
PROTOCOLS: dict[str, Protocol] = {
  'rgb': _checked(_rgb),
  'rgb8': _checked(_rgb8),
  'y': _checked(_y),
  'y_float': _checked(functools.partial(_y_float, _round_to_uint8)),
  'prenet': _checked(functools.partial(_y_float, _truncate_to_uint8)),
}
