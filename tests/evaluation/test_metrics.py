"""Metrics against scikit-image, TensorFlow and float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics
import tensorflow as tf
from PIL import Image

from mixdtp_jax.evaluation import metrics
from mixdtp_jax.ops import ssim as ssim_lib


def _smooth_pair(height, width, seed=0, batch=1, noise=0.1):
  """Photograph-like float32 images that are not multiples of 1/255."""
  rng = np.random.default_rng(seed)
  clean = rng.random((batch, height, width, 3))
  clean = scipy.ndimage.gaussian_filter(clean, (0, 3, 3, 0), mode='wrap')
  clean = (clean - clean.min()) / (clean.max() - clean.min())
  rainy = np.clip(clean + noise * rng.standard_normal(clean.shape), 0, 1)
  return rainy.astype(np.float32), clean.astype(np.float32)


def _from_uint8(seed, shape):
  values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
  return values, values.astype(np.float32) / 255


def _window_sums(plane, padding):
  """Applies the 11x11 window as a dense 2-D correlation in float64."""
  offsets = np.arange(-5, 6)
  window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
  sums = scipy.ndimage.correlate(
    plane, window / window.sum(), mode='constant', cval=0.0
  )
  return sums if padding == 'SAME' else sums[5:-5, 5:-5]


def _ssim_float64(x, y, padding, peak):
  """Computes SSIM of planes or (H, W, C) directly by the formula."""
  x, y = np.float64(x), np.float64(y)
  if x.ndim == 3:
    planes = range(x.shape[-1])
    return np.mean(
      [_ssim_float64(x[..., c], y[..., c], padding, peak) for c in planes]
    )
  sums = functools.partial(_window_sums, padding=padding)
  mu_x, mu_y = sums(x), sums(y)
  var_x, var_y = sums(x * x) - mu_x**2, sums(y * y) - mu_y**2
  cov = sums(x * y) - mu_x * mu_y
  c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
  return np.mean(
    (2 * mu_x * mu_y + c1)
    * (2 * cov + c2)
    / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
  )


def _matlab_luma(rgb8):
  rgb = np.float64(rgb8) / 255
  return (
    16 + 65.481 * rgb[..., 0] + 128.553 * rgb[..., 1] + 24.966 * rgb[..., 2]
  )


def _matlab_shrink(plane, factor):
  """Computes imfilter(plane, ones(f)/f^2, 'symmetric')(1:f:end, 1:f:end)."""
  centre = (factor + 1) // 2 - 1  # floor((f + 1) / 2), counted from 1
  padded = np.pad(plane, factor, mode='symmetric')
  first = factor - centre
  means = np.lib.stride_tricks.sliding_window_view(padded, (factor, factor))
  means = means[first::factor, first::factor].mean((2, 3))
  return means[: -(-plane.shape[0] // factor), : -(-plane.shape[1] // factor)]


def _psnr_float64(x, y, peak):
  return 10 * np.log10(peak**2 / np.mean((np.float64(x) - np.float64(y)) ** 2))


def _score(name, restored, clean):
  score = metrics.PROTOCOLS[name](restored, clean)
  return float(score.psnr[0]), float(score.ssim[0])


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('offset', [0.0, 0.9])
def test_ssim_is_float64_accurate(padding, offset):
  x, y = _smooth_pair(40, 51, batch=2, noise=0.02)
  x, y = (image * (1 - offset) + offset for image in (x, y))
  got = ssim_lib.ssim(x, y, padding=padding)
  assert got.shape == (2,) and got.dtype == jnp.float32
  want = [_ssim_float64(a, b, padding, 1.0) for a, b in zip(x, y, strict=True)]
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_ssim_of_flat_bright_images_is_accurate(padding):
  x = np.full((1, 24, 24, 3), 0.97, np.float32)
  y = np.full((1, 24, 24, 3), 0.25, np.float32)
  got = ssim_lib.ssim(x, y, padding=padding)
  want = _ssim_float64(x[0], y[0], padding, 1.0)
  np.testing.assert_allclose(got, [want], rtol=0, atol=2e-6)
  np.testing.assert_allclose(ssim_lib.ssim(x, x, padding=padding), 1, atol=1e-6)


def test_ssim_valid_equals_tensorflow():
  x, y = _smooth_pair(37, 64, batch=3)
  want = tf.image.ssim(x, y, max_val=1.0).numpy()
  got = ssim_lib.ssim(x, y, padding='VALID')
  np.testing.assert_allclose(got, want, atol=5e-6)


def test_ssim_valid_equals_scikit_image_on_the_interior():
  x, y = (np.float64(image[0]) for image in _smooth_pair(37, 64))
  _, pixels = skimage.metrics.structural_similarity(
    x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1.0, channel_axis=-1, full=True,
  )  # fmt: skip
  want = pixels[5:-5, 5:-5].mean()
  got = ssim_lib.ssim(x[None], y[None], padding='VALID')
  np.testing.assert_allclose(got, [want], atol=2e-6)


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_ssim_gradient_equals_float64_differences(padding):
  x, y = _smooth_pair(13, 17)

  def mean_ssim(x, y):
    return ssim_lib.ssim(x, y, padding=padding).sum()

  gradients = jax.jit(jax.grad(mean_ssim, argnums=(0, 1)))(x, y)
  rng = np.random.default_rng(1)
  for argument, gradient in enumerate(gradients):
    for _ in range(3):
      direction = rng.standard_normal(x[0].shape)
      pairs = []
      for sign in (1, -1):
        pair = [np.float64(x[0]), np.float64(y[0])]
        pair[argument] = pair[argument] + sign * 1e-6 * direction
        pairs.append(_ssim_float64(*pair, padding, 1.0))
      want = (pairs[0] - pairs[1]) / 2e-6
      got = np.sum(np.float64(gradient[0]) * direction)
      np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


def test_ssim_gradient_equals_tensorflow():
  x, y = _smooth_pair(24, 32, batch=2)
  with tf.GradientTape() as tape:
    variable = tf.constant(x)
    tape.watch(variable)
    value = tf.reduce_sum(tf.image.ssim(variable, y, max_val=1.0))
  want = tape.gradient(value, variable).numpy()
  got = jax.grad(lambda x: ssim_lib.ssim(x, y, padding='VALID').sum())(x)
  np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('values', [(0.0, 0.0), (1.0, 1.0), (0.3, 0.8)])
def test_ssim_gradient_is_finite_on_flat_patches(padding, values):
  x, y = (np.full((1, 16, 16, 3), value, np.float32) for value in values)
  gradient = jax.grad(
    lambda x: ssim_lib.ssim(x, y, padding=padding).sum()
  )(x)  # fmt: skip
  assert np.isfinite(gradient).all()


def test_ssim_refuses_small_images_shapes_and_paddings():
  small = np.zeros((1, 10, 64, 3), np.float32)
  with pytest.raises(ValueError, match='10x64.*at least 11'):
    ssim_lib.ssim(small, small, padding='VALID')
  with pytest.raises(ValueError, match='at least 11'):
    metrics.PROTOCOLS['y'](small, small)
  assert ssim_lib.ssim(small, small, padding='SAME') == pytest.approx(1)
  with pytest.raises(ValueError, match='one shape'):
    ssim_lib.ssim(small, small[:, :9], padding='SAME')
  with pytest.raises(ValueError, match='one shape'):
    metrics.PROTOCOLS['rgb'](small[0], small[0])
  with pytest.raises(ValueError, match="'full'"):
    ssim_lib.ssim(small, small, padding='full')


def test_protocol_rgb_clamps_but_does_not_round():
  restored, clean = _smooth_pair(24, 32)
  beyond = restored + np.where(restored > 0.99, 0.5, 0).astype(np.float32)
  psnr, ssim = _score('rgb', beyond, clean)
  clamped = np.clip(beyond, 0, 1)
  want = skimage.metrics.peak_signal_noise_ratio(
    np.float64(clean), np.float64(clamped), data_range=1
  )
  assert psnr == pytest.approx(want, abs=1e-4)
  assert ssim == pytest.approx(
    _ssim_float64(clamped[0], clean[0], 'SAME', 1), abs=2e-6
  )


def test_protocol_rgb8_rounds_to_uint8():
  restored, clean = _smooth_pair(24, 32, noise=0.004)
  psnr, ssim = _score('rgb8', restored, clean)
  x, y = (np.rint(np.float64(i) * 255) for i in (restored, clean))
  want = skimage.metrics.peak_signal_noise_ratio(y, x, data_range=255)
  assert psnr == pytest.approx(want, abs=1e-4)
  assert abs(psnr - _score('rgb', restored, clean)[0]) > 0.01
  assert ssim == pytest.approx(
    _ssim_float64(x[0], y[0], 'VALID', 255), abs=2e-6
  )


def test_protocol_y_rounds_luma_and_never_shrinks():
  # 400 rows would be halved by ssim.m.
  x8, x = _from_uint8(0, (1, 400, 400, 3))
  y8 = np.clip(np.int32(x8) + 7, 0, 255)
  psnr, ssim = _score('y', x, y8.astype(np.float32) / 255)
  luma_x, luma_y = (np.floor(_matlab_luma(i[0]) + 0.5) for i in (x8, y8))
  assert psnr == pytest.approx(_psnr_float64(luma_x, luma_y, 255), abs=2e-4)
  assert ssim == pytest.approx(
    _ssim_float64(luma_x, luma_y, 'VALID', 255), abs=2e-6
  )


def test_luma_is_exact_for_every_sampled_colour():
  rng = np.random.default_rng(0)
  rgb = rng.integers(0, 256, (200_000, 3), dtype=np.int32)
  rgb[:3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
  scaled = jax.jit(metrics._scaled_luma)(np.float32(rgb) / 255)
  luma = np.float64(scaled)[:, 0] / 255_000
  np.testing.assert_allclose(luma, _matlab_luma(rgb), rtol=1e-14)
  # By hand: black 16, white 235, red 16 + 65.481.
  np.testing.assert_allclose(luma[:3], [16, 235, 81.481])


def test_protocol_y_float_does_not_round_luma():
  restored, clean = _smooth_pair(30, 40, noise=0.05)
  psnr, ssim = _score('y_float', restored, clean)
  x, y = (
    _matlab_luma(np.rint(np.float64(i[0]) * 255)) for i in (restored, clean)
  )
  assert psnr == pytest.approx(_psnr_float64(x / 255, y / 255, 1), abs=1e-4)
  assert ssim == pytest.approx(_ssim_float64(x, y, 'VALID', 255), abs=2e-6)


def test_protocol_y_float_shrinks_large_images():
  x, y = _smooth_pair(390, 400)
  x8, y8 = (np.rint(np.float64(i[0]) * 255) for i in (x, y))
  psnr, ssim = _score('y_float', x, y)
  x, y = _matlab_luma(x8), _matlab_luma(y8)
  assert psnr == pytest.approx(_psnr_float64(x, y, 255), abs=1e-4)
  shrunk = _ssim_float64(
    _matlab_shrink(x, 2), _matlab_shrink(y, 2), 'VALID', 255
  )
  assert ssim == pytest.approx(shrunk, abs=2e-6)
  assert abs(ssim - _ssim_float64(x, y, 'VALID', 255)) > 0.01


def test_truncation_keeps_uint8_values_and_cuts_fractions():
  truncate = jax.jit(metrics._truncate_to_uint8)
  levels = np.arange(256)
  for values in (
    np.float32(levels) / np.float32(255),
    np.float32(levels) * np.float32(1 / 255),
    np.float32(levels / 255),
  ):
    np.testing.assert_array_equal(truncate(values), levels)
  cut = truncate(np.float32((levels[:-1] + 0.99) / 255))
  np.testing.assert_array_equal(cut, levels[:-1])


def test_compiled_conversions_equal_numpys_to_the_last_bit():
  # Near every boundary of either, and anywhere.
  edges = np.arange(0, 256, 0.5)[:, None] - np.array([1e-4, 0])
  near = np.float32(edges.ravel() / 255)
  steps = np.arange(-40, 41, dtype=np.int32)
  near = (near.view(np.int32)[2:, None] + steps).view(np.float32)
  anywhere = np.random.default_rng(3).random(100_000, np.float32) * 1.2 - 0.1
  values = np.float32([*near.ravel(), *anywhere])
  scaled = np.float32(255) * np.clip(values, 0, 1)
  for convert, want in (
    (metrics._round_to_uint8, np.round(scaled)),
    (metrics._truncate_to_uint8, np.floor(scaled + np.float32(1e-4))),
  ):
    np.testing.assert_array_equal(jax.jit(convert)(values), want)


def test_protocol_prenet_truncates_the_restored_image_only():
  restored, clean = _smooth_pair(30, 40, noise=0.01)
  psnr, ssim = _score('prenet', restored, clean)
  x = _matlab_luma(np.floor(np.float64(restored[0]) * 255))
  y = _matlab_luma(np.rint(np.float64(clean[0]) * 255))
  assert psnr == pytest.approx(_psnr_float64(x, y, 255), abs=5e-3)
  assert ssim == pytest.approx(_ssim_float64(x, y, 'VALID', 255), abs=1e-4)
  assert abs(psnr - _score('y_float', restored, clean)[0]) > 0.02


@pytest.mark.parametrize('name', metrics.PROTOCOLS)
def test_identical_uint8_images_score_inf_and_one(name):
  _, image = _from_uint8(4, (2, 20, 20, 3))
  score = metrics.PROTOCOLS[name](image, image)
  assert score.psnr.shape == score.ssim.shape == (2,)
  assert np.isposinf(score.psnr).all()
  np.testing.assert_allclose(score.ssim, 1, atol=1e-6)


@pytest.mark.parametrize('name', metrics.PROTOCOLS)
def test_images_of_a_batch_are_scored_apart(name):
  x, y = _smooth_pair(129, 300, batch=2)  # several tiles
  together = metrics.PROTOCOLS[name](x, y)
  for i in range(2):
    alone = _score(name, x[i : i + 1], y[i : i + 1])
    assert alone == pytest.approx(
      (float(together.psnr[i]), float(together.ssim[i])), abs=1e-5
    )


def _exact(name, restored, clean):
  """Computes the scores of images (H, W, 3) whole and in float64."""
  if name == 'rgb':
    return _psnr_float64(restored, clean, 1), _ssim_float64(
      restored, clean, 'SAME', 1
    )
  x, y = (np.rint(255 * image) for image in (restored, clean))
  if name == 'prenet':
    x = np.floor(255 * restored + np.float32(1e-4))
  if name != 'rgb8':
    x, y = _matlab_luma(x), _matlab_luma(y)
  if name == 'y':  # halves up, which float64 misses now and then
    x, y = (np.floor(np.round(image, 9) + 0.5) for image in (x, y))
  psnr = _psnr_float64(x, y, 255)
  factor = max(1, (min(x.shape[:2]) + 128) // 256)
  if factor > 1 and name in ('y_float', 'prenet'):
    x, y = _matlab_shrink(x, factor), _matlab_shrink(y, factor)
  return psnr, _ssim_float64(x, y, 'VALID', 255)


# Most sides are no multiple of a tile, or just one; ssim.m shrinks by 1 to 4,
# and round(384 / 256 = 1.5) is 2 and round(640 / 256 = 2.5) is 3 in MATLAB.
_SIZES = (
  (11, 11), (12, 300), (129, 128), (257, 390), (383, 390), (384, 401),
  (640, 645), (903, 900),
)  # fmt: skip


@pytest.mark.parametrize('size', _SIZES, ids=str)
def test_tiles_give_the_scores_of_the_whole_image(size):
  x, y = _smooth_pair(*size, seed=sum(size), noise=0.03)
  names = list(metrics.PROTOCOLS)
  if min(size) > 600:
    names = [n for n in names if metrics.PROTOCOLS[n].shrinks]  # slow otherwise
  protocols = [metrics.PROTOCOLS[name] for name in names]
  found = metrics.scores(x, y, protocols)
  for name, got in zip(names, found, strict=True):
    want = _exact(name, x[0], y[0])
    assert np.ravel(got) == pytest.approx(want, abs=2e-6), name
  assert metrics.scores(*jax.device_put((x, y)), protocols) == found


@pytest.mark.parametrize('size', [(1, 1), (3, 70), (10, 10), (130, 5)], ids=str)
def test_protocol_rgb_scores_images_smaller_than_a_window(size):
  x, y = np.random.default_rng(5).random((2, 1, *size, 3), np.float32)
  want = _exact('rgb', x[0], y[0])
  assert _score('rgb', x, y) == pytest.approx(want, abs=2e-6)


@pytest.mark.parametrize(('f', 'before'), [(1, 5), (2, 10), (3, 16)])
def test_tiles_are_mirrored_beyond_the_image(f, before):
  images = np.random.default_rng(6).random((2, 30, 21, 3), np.float32)
  padded = np.pad(images[1], ((500, 500), (500, 500), (0, 0)), 'symmetric')
  size = f * (128 + 10)
  top, left = (500 + corner - before for corner in (0, 7))
  want = padded[top : top + size, left : left + size]
  device = jax.devices()[0]
  for source in (images, jax.device_put(images, device)):
    tile = metrics._cut(source, 1, [0, 7], f, device)
    np.testing.assert_array_equal(tile, want)


def test_all_sizes_share_a_program(monkeypatch):
  traced, ssim_map = [], metrics.ssim_map
  monkeypatch.setattr(metrics, '_TILE', 24)  # of no other test
  monkeypatch.setattr(
    metrics, 'ssim_map', lambda *args: (traced.append(1), ssim_map(*args))[1]
  )

  def score(*size):
    metrics.scores(*_smooth_pair(*size), list(metrics.PROTOCOLS.values()))
    return len(traced)

  # One for protocols that shrink, and one for those that never do.
  assert {score(size, 90 - size) for size in range(20, 70, 5)} == {2}
  # Two halves.
  assert score(384, 385) == score(400, 430) == 3


def test_rain100l_inputs_score_as_published(real_data):
  folder = real_data / 'rain100l' / 'test'
  scores = []
  for path in sorted((folder / 'rain').glob('rain-*.png')):
    clean = folder / 'norain' / path.name.replace('rain', 'norain')
    pair = []
    for file in (path, clean):
      with Image.open(file) as image:
        pair.append(np.asarray(image.convert('RGB'), np.float32)[None] / 255)
    scores.append(_score('y_float', *pair))
  assert len(scores) == 100
  psnr, ssim = np.mean(scores, axis=0)
  assert psnr == pytest.approx(26.9007, abs=5e-5)
  assert ssim == pytest.approx(0.8384, abs=5e-5)
