"""The public door for programs: takes rain out of arrays and PIL images."""

import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from PIL import Image

from mixdtp_jax.data.images import orientation, turned
from mixdtp_jax.restoration.engine import Engine
from mixdtp_jax.restoration.metadata import fits
from mixdtp_jax.restoration.pictures import as_image, eight_bits
from mixdtp_jax.weights.load import load_weights

Images = TypeVar('Images', np.ndarray, jax.Array, Image.Image)

# Largest values of integers; floats are in [0, 1].
_LARGEST = {'uint8': 255, 'uint16': 65535}
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
# Bytes for a pixel: its colours as floats, and its samples before and after;
# and for one that is kept and then written.
_PER_PIXEL, _PER_KEPT_PIXEL = 12 + 2 * 8, 16


class Restorer:
  """A network that takes the rain out of images of any size.

  An image is restored as a whole, whatever `memory` is. Several threads may use
  one restorer.

    restorer = mixdtp_jax.load()
    restored = restorer(image)
  """

  def __init__(
    self,
    weights: str | os.PathLike = 'general',
    *,
    memory: int | None = None,
    scratch: str | os.PathLike | None = None,
    dtype: str = 'float32',
  ):
    """Loads weights; see `mixdtp_jax.load`."""
    cfg, params = load_weights(weights)
    self._engine = Engine(
      cfg, params, memory=memory, scratch=scratch, dtype=dtype
    )
    # Pixels of pictures that others read and write meanwhile.
    self.beside = 0

  def __call__(self, image: Images) -> Images:
    """Restores an image, or a batch.

    Args:
      image: one of
        - a NumPy or JAX array (H, W), gray, (H, W, 3), RGB, (H, W, 4), RGB and
          alpha, or (B, H, W, 3), RGB; uint8 in [0, 255], uint16 in [0, 65535]
          or float in [0, 1];
        - a PIL image of any mode of up to 16 bits. It is turned upright by its
          EXIF while it is restored.

    Returns:
      The same kind: type, shape and dtype of an array; mode, size and `info`
      of a PIL image. Gray stays gray, and alpha is kept. Palette, CMYK (by its
      profile, which is then left out of `info`) and the like become RGB, one
      bit becomes gray, and a transparent colour becomes alpha.

    Raises:
      TypeError: `image` is neither an array nor a PIL image.
      ValueError: it has another shape, dtype or range.
    """
    if isinstance(image, Image.Image):
      return self._restore_pil(image)
    if isinstance(image, jax.Array):
      return jax.numpy.asarray(self._restore_array(np.asarray(image)))
    if isinstance(image, np.ndarray):
      return self._restore_array(image)
    raise TypeError(
      f'{type(image).__name__} is no image: needs an array of NumPy or JAX, or '
      'a PIL image'
    )

  def check(self, height: int, width: int, kept: int = 0) -> None:
    """Raises ValueError, which names the least, if the memory is too small.

    It is for a picture of H x W pixels, and `kept` pixels of others that the
    caller holds meanwhile.
    """
    others = _PER_PIXEL * height * width + _PER_KEPT_PIXEL * kept
    self._engine.check(height, width, others)

  def restore(
    self,
    pixels: np.ndarray,
    progress: Callable[[float], None] | None = None,
  ) -> np.ndarray:
    """Restores the pixels of one picture; the result has their shape and dtype.

    Args:
      pixels: (H, W, C) uint8, uint16 or float in [0, 1]: gray, gray and alpha,
        RGB, or RGB and alpha.
      progress: is called with the part that is done, up to 1.

    Raises:
      ValueError: the pixels have another shape, dtype or range; or the network
        gives values that are not finite.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
      raise ValueError(f'pixels of shape {pixels.shape}: needs (H, W, 1 to 4)')
    if 0 in pixels.shape:
      raise ValueError(f'pixels of shape {pixels.shape}: there are none')
    colours = 1 if pixels.shape[2] < 3 else 3
    rainy = _to_float(pixels[..., :colours])
    restored = self._engine(
      np.broadcast_to(rainy, (*rainy.shape[:2], 3)),
      progress,
      _PER_KEPT_PIXEL * self.beside,
    )
    del rainy
    if not np.isfinite(restored).all():
      raise ValueError(
        'the network gives values that are not finite: choose other weights, '
        'or float32 if it computes in bfloat16'
      )
    if colours == 1:
      restored = np.minimum(restored @ _LUMA, 1)[..., None]
    if largest := _LARGEST.get(pixels.dtype.name):
      restored = np.round(restored * np.float32(largest))
    result = np.empty_like(pixels)
    result[..., :colours] = restored
    result[..., colours:] = pixels[..., colours:]
    return result

  def _restore_array(self, array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
      return self.restore(array[..., None])[..., 0]
    if array.ndim == 3 and array.shape[2] in (3, 4):
      return self.restore(array)
    if array.ndim == 4 and array.shape[3] == 3 and len(array):
      return np.stack([self.restore(image) for image in array])
    raise ValueError(
      f'an image of shape {array.shape}: needs (H, W), (H, W, 3), (H, W, 4) or '
      '(B, H, W, 3)'
    )

  def _restore_pil(self, image: Image.Image) -> Image.Image:
    image.load()
    how = orientation(image)
    if image.mode.startswith('I;16'):
      pixels = np.asarray(image).astype(np.uint16)[..., None]
    elif image.mode in ('I', 'F'):
      raise ValueError(
        f'a PIL image of mode {image.mode}: pass its pixels as an array of '
        'uint16 or of float in [0, 1]'
      )
    else:
      pixels = eight_bits(image)
    # The turn back: only a quarter turn is not its own opposite.
    back = {6: 8, 8: 6}.get(how, how)
    restored = turned(self.restore(turned(pixels, how)), back)
    result = as_image(restored)
    result.info = dict(image.info)
    result.info.pop('transparency', None)  # it is alpha now
    if not fits(result.info.get('icc_profile') or b'', restored.shape[2]):
      result.info.pop('icc_profile', None)
    return result


def _to_float(pixels: np.ndarray) -> np.ndarray:
  """Returns float32 in [0, 1]; ValueError for other values or dtypes."""
  if largest := _LARGEST.get(pixels.dtype.name):
    return pixels / np.float32(largest)
  if not jax.numpy.issubdtype(pixels.dtype, np.floating):
    raise ValueError(
      f'pixels of {pixels.dtype}: needs uint8, uint16 or float in [0, 1]'
    )
  if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN, too
    raise ValueError(
      f'float pixels from {pixels.min()} to {pixels.max()}: needs [0, 1]'
    )
  return pixels.astype(np.float32)
