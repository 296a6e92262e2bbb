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
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mixdtp_jax.ops.ssim import check_shapes, ssim


class Score(NamedTuple):
  """PSNR in dB and SSIM: arrays (B,) for a batch, floats for one image."""

  psnr: Any
  ssim: Any


Protocol = Callable[[jax.Array, jax.Array], Score]


def _psnr(x: jax.Array, y: jax.Array, peak: float) -> jax.Array:  # (B,)
  check_shapes(x, y)
  return -10 * jnp.log10(jnp.square((x - y) / peak).mean((1, 2, 3)))


def _round_to_uint8(images: jax.Array) -> jax.Array:
  return jnp.round(255 * jnp.clip(images, 0, 1)).astype(jnp.int32)


def _truncate_to_uint8(images: jax.Array) -> jax.Array:
  # In float32, 255 * (k / 255) can be just below k, so an image from a uint8
  # file would lose a gray level. 1e-4 is above that error (at most 3e-5), and
  # changes one in 10,000 other values.
  return jnp.floor(255 * jnp.clip(images, 0, 1) + 1e-4).astype(jnp.int32)


# MATLAB's rgb2ycbcr: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 for
# uint8. It is computed in integers, because float32 would round wrongly: Y has
# steps of 1.2e-5, float32 near 235 has steps of 1.5e-5.
_LUMA_WEIGHTS = (65_481, 128_553, 24_966)
_LUMA_SCALE = 255_000


def _scaled_luma(rgb: jax.Array) -> jax.Array:
  """Computes 255,000 (Y - 16), int32 (B, H, W, 1), of int32 RGB in 0..255."""
  red, green, blue = (
    rgb[..., i, None] * weight for i, weight in enumerate(_LUMA_WEIGHTS)
  )
  return red + green + blue


def _shrink(images: jax.Array) -> jax.Array:
  """Shrinks images (B, H, W, C) as Wang's ssim.m does.

  f = max(1, round(min(H, W) / 256)), with halves rounded away from zero. The
  result is the f x f mean with symmetric borders at every f-th pixel.
  """
  batch, height, width, channels = images.shape
  f = max(1, (min(height, width) + 128) // 256)
  # imfilter centres an even window on the first of its two middle pixels.
  before, after = (f - 1) // 2, f // 2
  border = ((0, 0), (before, after), (before, after), (0, 0))
  images = jnp.pad(images, border, mode='symmetric')
  rows, columns = math.ceil(height / f), math.ceil(width / f)
  images = images[:, : rows * f, : columns * f]
  return images.reshape(batch, rows, f, columns, f, channels).mean((2, 4))


def _rgb(restored: jax.Array, clean: jax.Array) -> Score:
  restored, clean = jnp.clip(restored, 0, 1), jnp.clip(clean, 0, 1)
  return Score(_psnr(restored, clean, 1), ssim(restored, clean, padding='SAME'))


def _rgb8(restored: jax.Array, clean: jax.Array) -> Score:
  x, y = _round_to_uint8(restored), _round_to_uint8(clean)
  return Score(_psnr(x, y, 255), ssim(x, y, padding='VALID', data_range=255))


def _y(restored: jax.Array, clean: jax.Array) -> Score:
  x, y = (
    16 + (_scaled_luma(_round_to_uint8(rgb)) + _LUMA_SCALE // 2) // _LUMA_SCALE
    for rgb in (restored, clean)
  )
  return Score(_psnr(x, y, 255), ssim(x, y, padding='VALID', data_range=255))


def _y_float(
  quantise: Callable[[jax.Array], jax.Array],
  restored: jax.Array,
  clean: jax.Array,
) -> Score:
  x, y = _scaled_luma(quantise(restored)), _scaled_luma(_round_to_uint8(clean))
  psnr = _psnr(x, y, 255 * _LUMA_SCALE)
  x, y = (_shrink(16 + luma / _LUMA_SCALE) for luma in (x, y))
  return Score(psnr, ssim(x, y, padding='VALID', data_range=255))


def _checked(protocol: Protocol) -> Protocol:
  """Compiles a protocol, and makes it score nan where pixels are not finite."""

  @jax.jit
  def score(restored: jax.Array, clean: jax.Array) -> Score:
    scores = protocol(restored, clean)  # rounding to integers hides a nan
    finite = jnp.isfinite(restored).all((1, 2, 3))
    return Score(*(jnp.where(finite, x, jnp.nan) for x in scores))

  return score


# Each maps restored and clean images to a Score of arrays (B,), float32.
PROTOCOLS: dict[str, Protocol] = {
  'rgb': _checked(_rgb),
  'rgb8': _checked(_rgb8),
  'y': _checked(_y),
  'y_float': _checked(functools.partial(_y_float, _round_to_uint8)),
  'prenet': _checked(functools.partial(_y_float, _truncate_to_uint8)),
}
