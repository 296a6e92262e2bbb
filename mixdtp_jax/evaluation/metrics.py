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

All is computed on a device, in tiles of one shape, so that images of all sizes
share two compiled programs, and one more for each factor by which ssim.m
shrinks. Restored images that are on a device do not leave it: a small program
for each size cuts the tiles there.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixdtp_jax.ops.ssim import WINDOW, check_shapes, ssim_map

_TILE = 128  # windows on each side of a tile
_MARGIN = WINDOW // 2  # pixels around a tile for its outer windows

Images = np.ndarray | jax.Array


class Score(NamedTuple):
  """PSNR in dB and SSIM: arrays (B,) for a batch, floats for one image."""

  psnr: Any
  ssim: Any


class Protocol(NamedTuple):
  """A function of restored and clean images, (B, H, W, 3) float in [0, 1]."""

  restored: Callable[[jax.Array], jax.Array]  # to values (..., channels)
  clean: Callable[[jax.Array], jax.Array]  # likewise
  channels: int
  peak: int  # of the values
  border: int = _MARGIN  # pixels along the sides that have no window
  shrinks: bool = False

  def __call__(self, restored: Images, clean: Images) -> Score:
    """Returns arrays (B,), float64. ValueError for sizes that do not fit."""
    return scores(restored, clean, [self])[0]


def scores(
  restored: Images, clean: Images, protocols: Sequence[Protocol]
) -> list[Score]:
  """Scores images under several protocols, faster than one by one.

  Images are (B, H, W, 3) float in [0, 1], on a device or not; scores are arrays
  (B,), float64. ValueError if the shapes differ, or a side is too short.
  """
  check_shapes(restored, clean)
  height, width = restored.shape[1:3]
  short = min(height, width)
  if any(short <= 2 * protocol.border for protocol in protocols):
    raise ValueError(
      f'an image of {width}x{height} pixels: SSIM needs sides of at least '
      f'{WINDOW} pixels; protocol rgb does not'
    )
  found: dict[Protocol, Score] = {}
  for shrinks in {protocol.shrinks for protocol in protocols}:
    some = tuple(p for p in protocols if p.shrinks == shrinks)
    # Halves are rounded away from zero, as in MATLAB.
    f = max(1, (short + 128) // 256) if shrinks else 1
    found |= zip(some, _scores(some, f, restored, clean), strict=True)
  return [found[protocol] for protocol in protocols]


def _scores(
  protocols: tuple[Protocol, ...], f: int, restored: Images, clean: Images
) -> Iterator[Score]:
  """Scores images under protocols that shrink them by one factor."""
  batch, *sides, _ = restored.shape
  device = jax.local_devices()[0]
  if isinstance(restored, jax.Array):
    device = min(restored.devices(), key=lambda device: device.id)
  corners = [range(0, side, f * _TILE) for side in sides]
  rows = []
  for which, *corner in itertools.product(range(batch), *corners):
    tiles = [_cut(x, which, corner, f, device) for x in (restored, clean)]
    where = jax.device_put(np.array([corner, sides], np.int32), device)
    rows.append(_sums(protocols, f, *tiles, where))
  ends = np.cumsum([protocol.channels for protocol in protocols])[:-1]
  squares, ssims = (
    np.split(np.reshape(x, (batch, -1, *x[0].shape)), ends, 2)
    for x in zip(*jax.device_get(rows), strict=True)
  )
  for protocol, x, y in zip(protocols, squares, ssims, strict=True):
    errors = x.sum((1, 3), np.float64).mean(1) / math.prod(sides)
    with np.errstate(divide='ignore'):
      psnr = -10 * np.log10(errors / protocol.peak**2)
    windows = [math.ceil(side / f) - 2 * protocol.border for side in sides]
    yield Score(psnr, y.sum((1, 3), np.float64).mean(1) / math.prod(windows))


def _cut(
  images: Images, which: int, corner: list[int], f: int, device: jax.Device
) -> jax.Array:
  """Puts a tile of an image, mirrored beyond its sides, on a device.

  `corner` is its top and left without the margin. It will be shrunk by f, so it
  has (f (_TILE + 2 _MARGIN), the same, 3).
  """
  indices = [np.int32(which)]
  for first, side in zip(corner, images.shape[1:3], strict=True):
    i = first - _before(f) + np.arange(f * (_TILE + 2 * _MARGIN))
    indices.append(np.minimum(i % (2 * side), -(i + 1) % (2 * side)))
  if isinstance(images, jax.Array):
    return _take_on_device(*jax.device_put((images, *indices), device))
  return jax.device_put(_take(images, *indices), device)


def _before(f: int) -> int:
  """Counts the pixels of a margin above or left of a tile."""
  # MATLAB's imfilter centres an even window on the first of its middle pixels.
  return f * _MARGIN + (f - 1) // 2


def _take(images: Any, which: Any, rows: Any, columns: Any) -> Any:
  return images[which].take(rows, 0).take(columns, 1)


_take_on_device = jax.jit(_take)  # compiled for each shape of images


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sums(
  protocols: tuple[Protocol, ...],
  f: int,
  restored: jax.Array,
  clean: jax.Array,
  where: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Sums in each row of a tile: so few values that float32 suffices.

  Args:
    protocols: one or several.
    f: the factor by which the tile is shrunk for SSIM.
    restored: as `_cut` returns it.
    clean: likewise.
    where: int32, the tile's top and left, and the image's height and width.

  Returns:
    Squared errors (channels, f _TILE) and SSIM (channels, _TILE) of all the
    protocols, float32; nan if the restored tile is not finite.
  """
  pairs = [(p.restored(restored), p.clean(clean)) for p in protocols]
  own = slice(_before(f), _before(f) + f * _TILE)
  errors = [(x - y)[own, own].astype(jnp.float32) for x, y in pairs]
  squares = jnp.square(jnp.concatenate(errors, 2).transpose(2, 0, 1))
  squares = jnp.where(_inside(where, f * _TILE), squares, 0)

  of_channels = [p for p in protocols for _ in range(p.channels)]
  planes = jnp.concatenate([jnp.stack(pair) for pair in pairs], 3)
  planes = planes / np.array([p.peak for p in of_channels], np.float32)
  size = _TILE + 2 * _MARGIN
  planes = planes.transpose(0, 3, 1, 2).reshape(2, -1, size, f, size, f)
  planes = planes.mean((3, 5))
  levels = planes.mean((2, 3), keepdims=True)
  corner, sides = where[0] // f, -(-where[1] // f)
  # Black beyond the sides; levels are subtracted against rounding.
  planes = jnp.where(_inside((corner - _MARGIN, sides), size), planes, 0)
  ssims = ssim_map(*(planes - levels), *levels)
  inside = _inside((corner, sides), _TILE, [p.border for p in of_channels])
  ssims = jnp.where(inside, ssims, 0)
  flaw = jnp.where(jnp.isfinite(restored).all(), 0, jnp.nan)
  return squares.sum(2) + flaw, ssims.sum(2) + flaw


def _inside(where: Any, size: int, borders: Sequence[int] = (0,)) -> jax.Array:
  """Tells which pixels are inside each border: (borders, size, size) bool."""
  corner, sides = (x[:, None, None] for x in where)
  border = np.reshape(borders, (-1, 1))
  i = corner + np.arange(size)
  rows, columns = (i >= border) & (i < sides - border)
  return rows[:, :, None] & columns[:, None]


def _clamp(rgb: jax.Array) -> jax.Array:
  return jnp.clip(rgb, 0, 1)


def _round_to_uint8(rgb: jax.Array) -> jax.Array:
  return jnp.round(255 * _clamp(rgb)).astype(jnp.int32)


def _truncate_to_uint8(rgb: jax.Array) -> jax.Array:
  # In float32, 255 * (k / 255) can be just below k, so an image from a uint8
  # file would lose a gray level. 1e-4 is above that error (at most 3e-5), and
  # changes one in 10,000 other values. This is floor(255 x + 1e-4), without a
  # sum that a compiler may fuse with the product.
  values = 255 * _clamp(rgb)
  rounded = jnp.round(values)
  return (rounded - (values < rounded - 1e-4)).astype(jnp.int32)


def _scaled_luma(
  rgb: jax.Array, to_uint8: Callable[[jax.Array], jax.Array] = _round_to_uint8
) -> jax.Array:
  """Computes 255,000 Y, int32 (..., 1).

  MATLAB's rgb2ycbcr: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 for
  uint8. Float32 would round wrongly: Y has steps of 1.2e-5, float32 near 235
  has steps of 1.5e-5.
  """
  weighted = to_uint8(rgb) * np.array([65_481, 128_553, 24_966], np.int32)
  return 16 * 255_000 + weighted.sum(-1, keepdims=True)


def _luma(rgb: jax.Array) -> jax.Array:
  return (_scaled_luma(rgb) + 127_500) // 255_000


_luma_truncated = functools.partial(_scaled_luma, to_uint8=_truncate_to_uint8)
_PEAK = 255 * 255_000
PROTOCOLS = {
  'rgb': Protocol(_clamp, _clamp, 3, 1, border=0),
  'rgb8': Protocol(_round_to_uint8, _round_to_uint8, 3, 255),
  'y': Protocol(_luma, _luma, 1, 255),
  'y_float': Protocol(_scaled_luma, _scaled_luma, 1, _PEAK, shrinks=True),
  'prenet': Protocol(_luma_truncated, _scaled_luma, 1, _PEAK, shrinks=True),
}
