"""The shipped model restores as its card in docs/models.md says."""

from importlib import resources

import numpy as np
import pytest

import mixdtp_jax
from mixdtp_jax.data import images
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from tests.conftest import REPOSITORY

# Ten of the 100 scores whose mean is on the card: protocol y, dB.
RAIN100L = {
  1: 36.272,
  2: 36.387,
  3: 38.35,
  4: 38.225,
  5: 34.063,
  6: 33.835,
  7: 32.608,
  8: 33.654,
  9: 34.877,
  10: 35.935,
}


@pytest.fixture(scope='module')
def general():
  return mixdtp_jax.load()


def psnr(restored, clean) -> float:
  pair = (x[None].astype(np.float32) / 255 for x in (restored, clean))
  return float(PROTOCOLS['y'](*pair).psnr[0])


def test_the_shipped_picture(general):
  rainy = images.read_image(REPOSITORY / 'docs' / 'rainy.jpg')
  clean = (resources.files('skimage') / 'data' / 'rocket.jpg').read_bytes()
  clean = images.read_image(clean)
  before, after = psnr(rainy, clean), psnr(general(rainy), clean)
  assert (before, after) == pytest.approx((25.11, 37.96), abs=0.02)


def test_ten_images_of_rain100l(general, real_data):
  folder = real_data / 'rain100l' / 'test'
  for number, expected in RAIN100L.items():
    rainy = images.read_image(folder / 'rain' / f'rain-{number:03}.png')
    clean = images.read_image(folder / 'norain' / f'norain-{number:03}.png')
    assert psnr(general(rainy), clean) == pytest.approx(expected, abs=0.01)
