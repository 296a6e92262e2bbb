"""SSIM, the structural similarity of images."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixdtp_jax.ops.dense import at_least_float32

WINDOW = 11  # pixels
_SIGMA = 1.5
_MARGIN = WINDOW // 2
_OFFSETS = np.arange(WINDOW) - _MARGIN
_TAPS = np.exp(-(_OFFSETS**2) / (2 * _SIGMA**2))
_TAPS /= _TAPS.sum()


@jax.custom_vjp
def _blur(planes: jax.Array) -> jax.Array:
  """Sums in Gaussian windows: (..., H, W) to (..., H - 10, W - 10)."""
  # Shifted multiply-adds take a third of the time of banded matrix products at
  # 320x480, and grow linearly with the image. XLA's convolution is 30 times
  # slower on a CPU.
  for axis in (-2, -1):
    # Without the barrier, XLA fuses both passes into one of 11 x 11 terms.
    planes = jax.lax.optimization_barrier(planes)
    size = planes.shape[axis] - 2 * _MARGIN
    blurred: Any = sum(
      float(tap)
      * jax.lax.slice_in_dim(planes, i, i + size, axis=planes.ndim + axis)
      for i, tap in enumerate(_TAPS)
    )
    planes = blurred
  return planes


def _blur_backward(_, cotangent):
  # The window is symmetric, so the adjoint is the same blur of the cotangent
  # with a border. XLA's transpose of the slices is 15 times slower.
  border = [(0, 0)] * (cotangent.ndim - 2) + [(2 * _MARGIN, 2 * _MARGIN)] * 2
  return (_blur(jnp.pad(cotangent, border)),)


_blur.defvjp(lambda planes: (_blur(planes), None), _blur_backward)


@functools.partial(jax.jit, static_argnames='padding')
def ssim(x: jax.Array, y: jax.Array, *, padding: str) -> jax.Array:
  """Computes the structural similarity of each pair of images.

  Wang et al., "Image quality assessment: from error visibility to structural
  similarity", 2004, equation 13, with a Gaussian window of 11 pixels (sigma
  1.5). There are no square roots, so the gradient is finite on flat patches.

  Images are (B, H, W, C), float in [0, 1]. The padding 'SAME' surrounds them
  with zeros so that every pixel has a window; 'VALID' uses only windows inside
  the image. The result (B,), float32 or wider in [-1, 1], is the mean over
  windows and channels.

  ValueError if the shapes differ or are not (B, H, W, C), if the padding is
  unknown, or if it is 'VALID' and a side is shorter than 11 pixels.
  """
  check_shapes(x, y)
  if padding not in ('SAME', 'VALID'):
    raise ValueError(f"padding = {padding!r}: needs 'SAME' or 'VALID'")
  height, width = x.shape[1:3]
  if padding == 'VALID' and min(height, width) < WINDOW:
    raise ValueError(
      f'SSIM over the valid region of a {height}x{width} image: needs sides '
      f'of at least {WINDOW} pixels; use padding SAME (protocol rgb)'
    )
  x, y = (at_least_float32(image).transpose(0, 3, 1, 2) for image in (x, y))
  # E[x^2] - E[x]^2 loses digits to the image's level. x - level has the same
  # variances from smaller products. Levels cancel, so their gradient is zero.
  level_x, level_y = (
    jax.lax.stop_gradient(image.mean((-2, -1), keepdims=True))
    for image in (x, y)
  )
  if padding == 'SAME':
    # Padded before the shift, so that the border is black at any level.
    border = ((0, 0), (0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN))
    x, y = jnp.pad(x, border), jnp.pad(y, border)
  found = ssim_map(x - level_x, y - level_y, level_x, level_y)
  return found.mean((1, 2, 3))


def ssim_map(
  x: jax.Array, y: jax.Array, level_x: jax.Array, level_y: jax.Array
) -> jax.Array:
  """Computes the SSIM of every window inside planes, as `ssim` defines it.

  x and y are planes (..., H, W) of a data range of 1 from which levels have
  been subtracted, (..., 1, 1); the result has (..., H - 10, W - 10).
  """
  mean_x, mean_y, xx, yy, xy = _blur(jnp.stack((x, y, x * x, y * y, x * y)))
  covariance = xy - mean_x * mean_y
  variances = xx - mean_x * mean_x + yy - mean_y * mean_y
  mean_x, mean_y = mean_x + level_x, mean_y + level_y
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2 * covariance + c2) / (variances + c2)
  return luminance * structure


def check_shapes(x: jax.Array | np.ndarray, y: jax.Array | np.ndarray) -> None:
  """Raises ValueError unless both are (B, H, W, C) of one shape."""
  if x.shape != y.shape or x.ndim != 4:
    raise ValueError(
      f'images of shapes {x.shape} and {y.shape}: need one shape (B, H, W, C)'
    )
