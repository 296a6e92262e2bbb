"""Photographs that scikit-image ships, with rain, and pairs of both."""

import io
from importlib import resources

import numpy as np
from PIL import Image

from mixdtp_jax.data.pairs import PairFiles
from mixdtp_jax.data.rain.draw import add_rain
from mixdtp_jax.recipe.rain_ranges import PRESETS


def photograph(name):
  file = resources.files('skimage') / 'data' / name
  return np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert('RGB'))


def encode(image, **options):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, **{'format': 'PNG', **options})
  return buffer.getvalue()


def jpeg(image, quality):
  return encode(image, format='JPEG', quality=quality)


def draw(image, seed):
  clean = image.astype(np.float32) / 255
  rainy = add_rain(clean, (seed, 0), PRESETS['light'])
  return np.round(rainy.numpy() * 255).astype(np.uint8)


def resize(image, factor):
  size = [round(side * factor) for side in image.shape[1::-1]]
  return np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC))


def luma(image):
  return np.asarray(Image.fromarray(image).convert('L'))


def pair(name, rainy, clean):
  return PairFiles(name, *(encode(image) for image in (rainy, clean)))
