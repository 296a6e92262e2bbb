"""Image files of noise."""

import numpy as np
from PIL import Image


def save(path, size=(40, 36), mode='RGB', seed=0):
  """Saves an image of (width, height); returns its pixels as RGB."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
  image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
  image.save(path)
  return np.asarray(image.convert('RGB'))
