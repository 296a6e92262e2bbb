import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from mixdtp_jax.data import rain


def photograph(height=90, width=120):
  ramp = np.linspace(0.1, 0.7, height * width * 3, dtype=np.float32)
  return ramp.reshape(height, width, 3)


def test_is_fixed_by_the_seed():
  image = photograph()
  first = rain.add_rain(image, (3, 4)).numpy()
  np.testing.assert_array_equal(first, rain.add_rain(image, (3, 4)).numpy())
  for other in ((3, 5), (4, 4)):
    assert np.abs(first - rain.add_rain(image, other).numpy()).max() > 0.1


@pytest.mark.parametrize('shape', [(90, 120), (7, 300), (1, 1)])
def test_only_brightens_and_stays_in_range(shape):
  image = photograph(*shape)
  rainy = rain.add_rain(image, (0, 1)).numpy()
  assert rainy.shape == image.shape
  assert rainy.dtype == np.float32
  assert (rainy >= image).all()
  assert rainy.max() <= 1


def test_white_stays_white_and_streaks_are_gray():
  white = np.ones((40, 40, 3), np.float32)
  np.testing.assert_array_equal(rain.add_rain(white, (0, 0)).numpy(), white)
  black = rain.add_rain(np.zeros((80, 80, 3)), (0, 0)).numpy()
  np.testing.assert_array_equal(black[..., 0], black[..., 2])


def test_is_the_same_in_tf_data():
  image = photograph()
  numbers = tf.data.Dataset.range(3)
  drawn = numbers.map(lambda n: rain.add_rain(image, tf.stack([9, n])))
  for n, rainy in enumerate(drawn.as_numpy_iterator()):
    # A compiled graph may round sums in another order.
    expected = rain.add_rain(image, (9, n)).numpy()
    np.testing.assert_allclose(rainy, expected, atol=1e-5)


def test_strength_is_that_of_light_rain():
  image = np.full((320, 480, 3), 0.4, np.float32)
  rainy = [rain.add_rain(image, (0, n)).numpy() for n in range(8)]
  psnr = [-10 * np.log10(np.mean((r - image) ** 2)) for r in rainy]
  assert 22 < np.mean(psnr) < 28


def test_density_adds_lines():
  image = np.zeros((120, 120, 3), np.float32)
  covered = []
  for density in (0.0, 0.5, 2.0):
    kind = dataclasses.replace(rain.LIGHT, density=(density, density))
    covered.append((rain.add_rain(image, (0, 0), kind).numpy() > 0.02).mean())
  assert covered[0] == 0
  assert 1.5 * covered[1] < covered[2]


def one_layer(**changes):
  layer = rain.Layer(1500, (40, 40), (0.7, 0.7), (0.4, 0.4))
  return dataclasses.replace(layer, **changes)


def draw(layer, **kind):
  options = {'angle': (0, 0), 'spread': 0.0, 'density': (1, 1)} | kind
  black = np.zeros((160, 160, 3), np.float32)
  drawn = rain.add_rain(black, (1, 2), rain.Rain((layer,), **options))
  return drawn.numpy()[..., 0]


def direction(image):
  """Degrees from the vertical, by the structure tensor."""
  down, right = np.gradient(image)
  double = np.arctan2(
    2 * (down * right).sum(), (right**2).sum() - (down**2).sum()
  )
  return np.degrees(double / 2)


@pytest.mark.parametrize('angle', [-30, 0, 20])
def test_lines_follow_the_angle(angle):
  # Wide lines: differences of neighbouring pixels bend thin ones' direction.
  wide = one_layer(width=(2.0, 2.0))
  measured = direction(draw(wide, angle=(angle, angle)))
  assert measured == pytest.approx(-angle, abs=3)


def test_spread_turns_lines_apart():
  parallel, spread = draw(one_layer()), draw(one_layer(), spread=20.0)
  # Vertical lines change far less downwards than spread ones.
  changes = [np.abs(np.diff(i, axis=0)).sum() for i in (parallel, spread)]
  assert changes[1] > 1.5 * changes[0]


def test_ranges_of_a_layer_are_alive():
  base = draw(one_layer())
  assert (draw(one_layer(length=(80, 80))) > 0.05).mean() > (
    1.3 * (base > 0.05).mean()
  )
  assert (draw(one_layer(width=(1.5, 1.5))) > 0.05).mean() > (
    1.3 * (base > 0.05).mean()
  )
  bright = draw(one_layer(brightness=(0.8, 0.8)))
  np.testing.assert_allclose(bright, np.minimum(2 * base, 1), atol=1e-5)
