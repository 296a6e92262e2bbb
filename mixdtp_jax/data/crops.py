"""Training crops: cut from an image, mirrored and turned."""

import numpy as np

from mixdtp_jax.data.mixture import Mixture
from mixdtp_jax.recipe.knobs import Data


def check_crops(pairs: Mixture, data: Data, crop: int) -> None:
  """Raises ValueError if an image is too small for crops of `crop` pixels."""
  if data.crops != 'second_cell':
    return
  for index in range(len(pairs)):
    height, width = pairs.shape(index)
    if (height // crop) * (width // crop) < 2:
      raise ValueError(
        f'{pairs[index]["name"]} has {width}x{height} pixels, no room for the '
        f"two cells of data.crop = {crop} that data.crops = 'second_cell' "
        "needs: take a smaller crop, or data.crops = 'random'"
      )


def cut_crop(
  image: np.ndarray, draws: np.ndarray, data: Data, crop: int
) -> np.ndarray:
  """Cuts a crop from (H, W, 3), mirrors it and turns it: (crop, crop, 3).

  `draws` are four random numbers below 2**32, for top, left, mirroring, turns.
  """
  height, width, _ = image.shape
  if data.transpose_landscape and height <= width:  # as in the original
    image, height, width = image.transpose(1, 0, 2), width, height
  top, left, flip, turns = draws
  if data.crops == 'second_cell':
    # The MixDTPNet repository divides an image into cells from the top left and
    # always takes cell 1: the right neighbour of the first, or the cell below
    # it in an image of one column.
    top, left = (0, crop) if width >= 2 * crop else (crop, 0)
  else:
    top, left = top % (height - crop + 1), left % (width - crop + 1)
  image = image[top : top + crop, left : left + crop]
  if data.flip and flip % 2 == 1:
    image = image[:, ::-1]
  if data.rotate:
    image = np.rot90(image, turns % 4)
  return image
