import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mixdtp_jax.data import images
from mixdtp_jax.data.rain.draw import add_rain
from mixdtp_jax.recipe.rain_ranges import PRESETS, RainRanges

STRENGTHS = ('streaks', 'veil', 'drops', 'noise', 'jpeg')
# Nothing is drawn; all that could be is one value.
STILL = RainRanges(
  **dict.fromkeys(STRENGTHS, (0, 0)),
  angle=(0, 0),
  spread=(0, 0),
  depth=(1, 1),
  length=(40, 40),
  width=(1, 1),
  brightness=(0.4, 0.4),
  occlusion=(0, 0),
  airlight=(0.8, 0.8),
  radius=(8, 8),
  shrink=(3, 3),
)
BLACK = np.zeros((200, 200, 3), np.float32)


def photograph(height=90, width=120):
  rows, columns = np.mgrid[:height, :width].astype(np.float32)
  waves = [np.sin(rows / 7 + p) * np.cos(columns / 5 - p) for p in range(3)]
  return np.stack(waves, axis=-1) * 0.3 + 0.4


def fixed(**values):
  """Ranges of one value each, or of two where two are given."""
  pairs = {k: v if isinstance(v, tuple) else (v, v) for k, v in values.items()}
  return dataclasses.replace(STILL, **pairs)


def draw(image, seed=(1, 2), **values):
  return add_rain(image, seed, fixed(**values)).numpy()


def in_tf_data(image, count, ranges):
  """Seeds (0, 0) to (0, count - 1); building the graph takes two seconds."""
  numbers = tf.data.Dataset.range(count)
  return numbers.map(
    lambda n: add_rain(image, tf.stack([0, n]), ranges), tf.data.AUTOTUNE
  )


def test_is_fixed_by_the_seed():
  image, ranges = photograph(), PRESETS['mixed']
  first = add_rain(image, (3, 4), ranges).numpy()
  again = add_rain(image, (3, 4), ranges).numpy()
  np.testing.assert_array_equal(first, again)
  for other in ((3, 5), (4, 4)):
    rainy = add_rain(image, other, ranges).numpy()
    assert np.abs(first - rainy).max() > 0.1


@pytest.mark.parametrize(
  ('shape', 'name'),
  [
    ((90, 120), 'light'),
    ((90, 120), 'heavy'),
    ((90, 120), 'drops'),
    ((7, 300), 'mixed'),
    ((1, 1), 'mixed'),
  ],
)
def test_any_size_stays_in_range(shape, name):
  rainy = add_rain(photograph(*shape), (0, 1), PRESETS[name]).numpy()
  assert rainy.shape == (*shape, 3)
  assert rainy.dtype == np.float32
  assert rainy.min() >= 0
  assert rainy.max() <= 1


@pytest.mark.slow
def test_tf_data_draws_the_same_each_time_and_as_eagerly():
  image, ranges = photograph(), PRESETS['light']
  drawn = in_tf_data(image, 3, ranges)
  first, again = (list(drawn.as_numpy_iterator()) for _ in range(2))
  np.testing.assert_array_equal(first, again)
  for n, rainy in enumerate(first):
    # A compiled graph may round sums in another order.
    expected = add_rain(image, (0, n), ranges).numpy()
    np.testing.assert_allclose(rainy, expected, atol=1e-5)


@pytest.mark.parametrize('off', [0.0, -1.0])
def test_without_strength_the_image_stays_as_it_is(off):
  image = photograph()
  ranges = dict.fromkeys(STRENGTHS, (off, off))
  ranges = dataclasses.replace(PRESETS['mixed'], **ranges)
  rainy = add_rain(image, (1, 2), ranges).numpy()
  np.testing.assert_array_equal(rainy, image)


@pytest.mark.parametrize('field', dataclasses.fields(RainRanges))
def test_every_range_is_alive(field):
  image = photograph()
  everything = {
    'streaks': (30, 30),
    'veil': (0.01, 0.01),
    'drops': (5, 5),
    'noise': (0.01, 0.01),
    'jpeg': (10, 10),
  }
  low, high = (everything | {'depth': (2, 2)}).get(
    field.name, getattr(STILL, field.name)
  )
  step = {'occlusion': 1, 'brightness': 0.2, 'airlight': 0.2, 'noise': 0.05}
  change = step.get(field.name, max(high, 1))
  base = draw(image, **everything)
  changed = draw(
    image, **everything | {field.name: (low + change, high + change)}
  )
  assert np.abs(base - changed).max() > 0.05


@pytest.mark.slow
def test_values_are_drawn_from_the_whole_range():
  # With lines that add no light, the veil alone shows what was drawn.
  ranges = fixed(streaks=1, brightness=0, veil=(-1, 3))
  drawn = in_tf_data(BLACK[:1, :1], 200, ranges)
  veil = np.array([image.mean() for image in drawn.as_numpy_iterator()])
  optical_depth = -np.log1p(-veil / 0.8)
  assert np.mean(optical_depth == 0) == pytest.approx(0.25, abs=0.1)
  assert max(optical_depth) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'streaks': 10, 'length': 20, 'angle': 30},
    {'width': 2, 'brightness': 0.1, 'angle': -80, 'spread': 20},
    {'depth': 2, 'width': 2},
    {'depth': 4},  # a width of 0.25 pixels, which is less than a pixel shows
  ],
)
def test_lines_add_the_light_of_their_number_and_shape(changes):
  """The mean of gaussians with a cosine along them, in closed form."""
  values = {'streaks': 4, 'length': 40, 'width': 1, 'brightness': 0.4}
  values |= {'depth': 1} | changes
  drawn = [draw(BLACK, (0, n), **values) for n in range(6)]
  length, width = (values[k] / values['depth'] for k in ('length', 'width'))
  line = values['brightness'] * length * width * np.sqrt(2 * np.pi) * 2 / np.pi
  expected = values['streaks'] * 1e-4 * line
  # About a hundred lines or more.
  assert np.mean(drawn) == pytest.approx(expected, rel=0.12)


@pytest.mark.slow
def test_small_crops_have_the_rain_of_large_images():
  values = {'streaks': 20, 'length': (10, 60), 'depth': (1, 3)}
  large = np.mean([draw(BLACK, (1, n), **values) for n in range(6)])
  crops = in_tf_data(BLACK[:24, :24], 200, fixed(**values))
  crops = np.mean(list(crops.as_numpy_iterator()))
  assert crops == pytest.approx(large, rel=0.15)


def test_a_line_is_as_bright_as_asked():
  # A wide one: lines are drawn between pixels, which blurs thin ones.
  rainy = draw(BLACK, streaks=1, width=2)
  assert rainy.max() == pytest.approx(0.4, rel=0.05)


def test_lines_are_gray():
  rainy = draw(BLACK, streaks=20)
  np.testing.assert_array_equal(rainy[..., 0], rainy[..., 2])


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
  rainy = draw(BLACK, streaks=15, width=2, angle=angle)
  assert direction(rainy[..., 0]) == pytest.approx(-angle, abs=3)


def test_spread_turns_lines_apart():
  parallel, spread = (draw(BLACK, streaks=15, spread=s) for s in (0, 20))
  # Vertical lines change far less downwards than spread ones.
  changes = [np.abs(np.diff(i, axis=0)).sum() for i in (parallel, spread)]
  assert changes[1] > 1.5 * changes[0]


def test_occlusion_leads_from_added_light_to_the_screen_rule():
  light = draw(BLACK, streaks=20)
  gray = np.full_like(BLACK, 0.3)
  np.testing.assert_allclose(
    draw(gray, streaks=20), np.minimum(gray + light, 1), atol=1e-6
  )
  # One layer after another: the rule holds for all of them together.
  one = draw(BLACK, streaks=20, occlusion=1)
  np.testing.assert_allclose(
    draw(gray, streaks=20, occlusion=1), 1 - (1 - gray) * (1 - one), atol=1e-6
  )


def test_the_veil_grows_with_the_rain():
  image = photograph()
  for streaks in (5, 50):
    seen = np.exp(-0.02 * streaks)
    rainy = draw(image, streaks=streaks, brightness=0, veil=0.02)
    np.testing.assert_allclose(
      rainy, image * seen + 0.8 * (1 - seen), atol=1e-6
    )


@pytest.mark.slow
def test_drops_cover_the_area_of_their_number_and_radius():
  # Beneath drops a board of 2x2 squares is blurred to gray.
  board = np.indices((300, 300)).sum(0) % 2
  image = np.repeat(board[..., None], 3, axis=-1).astype(np.float32)
  for drops, radius in ((1, 16), (0.25, 32)):
    values = {'drops': drops, 'radius': radius, 'shrink': 4}
    rainy = [draw(image, (0, n), **values) for n in range(6)]
    covered = np.mean(np.array(rainy) != image)
    expected = 1 - np.exp(-drops * 1e-4 * np.pi * radius**2)  # they overlap
    assert covered == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize('shrink', [2, 4])
def test_a_drop_shows_the_scene_upside_down_and_smaller(shrink):
  ramp = np.linspace(0, 1, 400, dtype=np.float32)
  for axis in (0, 1):
    image = np.broadcast_to(ramp[:, None, None], (400, 400, 3))
    image = image if axis == 0 else image.swapaxes(0, 1)
    rainy = draw(image, drops=0.6, radius=20, shrink=shrink)
    slope = np.diff(rainy, axis=axis) * 399
    beneath = np.abs(slope - 1) > 0.1
    assert beneath.mean() > 0.02
    assert np.median(slope[beneath]) == pytest.approx(-shrink, abs=0.3)


def test_noise_has_its_deviation():
  gray = np.full_like(BLACK, 0.5)
  noise = draw(gray, noise=0.03) - gray
  assert noise.std() == pytest.approx(0.03, rel=0.02)
  assert noise.mean() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize('loss', [10, 60])
def test_jpeg_loses_what_pillow_loses_at_that_quality(loss):
  image = np.clip(photograph() + draw(BLACK, streaks=40)[:90, :120], 0, 1)
  encoded = io.BytesIO()
  pixels = Image.fromarray(np.round(image * 255).astype(np.uint8))
  pixels.save(encoded, format='JPEG', quality=100 - loss)
  expected = np.asarray(Image.open(encoded)) / 255
  rainy = draw(image.astype(np.float32), jpeg=loss)
  error = np.abs(rainy - image).mean()
  assert np.abs(rainy - expected).mean() < 0.6 * error


@pytest.mark.slow
def test_light_rain_is_as_strong_as_that_of_rain100l(real_data):
  real, drawn = [], []
  for number in range(1, 101, 8):
    rainy, clean = (
      images.read_image(
        real_data / f'rain100l/test/{side}/{side}-{number:03d}.png'
      ).astype(np.float32)
      / 255
      for side in ('rain', 'norain')
    )
    synthetic = add_rain(clean, (0, number), PRESETS['light']).numpy()
    for strengths, image in ((real, rainy), (drawn, synthetic)):
      added = image - clean
      psnr = -10 * np.log10(np.mean(added**2))
      strengths.append((psnr, *(100 * np.quantile(added, (0.9, 0.95, 0.99)))))
  # PSNR in dB, and quantiles of the added light in percent of white.
  difference = np.mean(real, axis=0) - np.mean(drawn, axis=0)
  assert np.abs(difference).max() < 5


@pytest.mark.slow
def test_the_command_shows_every_preset(tmp_path):
  pixels = np.round(photograph() * 255).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'clean.png')
  command = [sys.executable, '-m', 'mixdtp_jax', 'rain']
  arguments = [str(tmp_path / 'clean.png'), '--to', str(tmp_path / 'rain.png')]
  result = subprocess.run(
    command + arguments, capture_output=True, text=True, timeout=300
  )
  assert result.returncode == 0, result.stderr
  assert ', '.join(PRESETS) in result.stdout
  gallery = images.read_image(tmp_path / 'rain.png')
  assert gallery.shape[0] > 2 * 90
  assert gallery.shape[1] > 2 * 120
