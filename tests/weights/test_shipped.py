"""The shipped models restore as their cards in docs/models.md say."""

from importlib import resources

import numpy as np
import pytest

import mixdtp_jax
from mixdtp_jax.data import images
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from tests.conftest import REPOSITORY

# Ten of the 100 scores whose means are on the cards: protocol y, dB.
RAIN100L = {
  'general': (
    36.548, 33.418, 39.013, 38.267, 35.099, 32.808, 33.059, 34.638, 34.914,
    36.544,
  ),
  'rain100l': (
    37.681, 37.864, 40.825, 40.131, 37.373, 35.17, 34.967, 36.863, 36.721,
    37.854,
  ),
}  # fmt: skip
# Of docs/rainy.jpg, restored: protocol y, dB.
PICTURE = {'general': 38.38, 'rain100l': 40.04}


@pytest.fixture(scope='module', params=PICTURE)
def shipped(request):
  return request.param, mixdtp_jax.load(request.param)


def psnr(restored, clean) -> float:
  pair = (x[None].astype(np.float32) / 255 for x in (restored, clean))
  return float(PROTOCOLS['y'](*pair).psnr[0])


def test_the_shipped_picture(shipped):
  name, restore = shipped
  rainy = images.read_image(REPOSITORY / 'docs' / 'rainy.jpg')
  clean = (resources.files('skimage') / 'data' / 'rocket.jpg').read_bytes()
  clean = images.read_image(clean)
  before, after = psnr(rainy, clean), psnr(restore(rainy), clean)
  assert (before, after) == pytest.approx((25.11, PICTURE[name]), abs=0.02)


def test_ten_images_of_rain100l(shipped, real_data):
  name, restore = shipped
  folder = real_data / 'rain100l' / 'test'
  for number, expected in enumerate(RAIN100L[name], 1):
    rainy = images.read_image(folder / 'rain' / f'rain-{number:03}.png')
    clean = images.read_image(folder / 'norain' / f'norain-{number:03}.png')
    assert psnr(restore(rainy), clean) == pytest.approx(expected, abs=0.01)
