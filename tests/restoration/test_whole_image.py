"""Padding, cropping, clamping, and several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.ops import dense
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.runtime.mesh import make_mesh

make_restore = functools.partial(whole_image.make_restore, multiple=8)


def _images(*shape):
  return np.random.default_rng(0).random(shape, np.float32)


def _identity(params, images):
  assert images.shape[1] % 8 == images.shape[2] % 8 == 0
  return images * params['gain']


def _next_pixels(params, images):
  """Returns each pixel's right and lower neighbour, which shows borders."""
  del params
  return jnp.roll(images, (-1, -1), (1, 2))


@pytest.mark.parametrize(
  'shape', [(1, 16, 24), (3, 17, 31), (2, 1, 1), (1, 2, 9), (9, 3, 5)]
)
def test_any_size_comes_back_as_it_was(shape):
  images = _images(*shape, 3)
  restored = make_restore(_identity, {'gain': jnp.ones(())})(images)
  assert restored.shape == images.shape and restored.dtype == np.float32
  np.testing.assert_array_equal(restored, images)


def test_the_border_is_reflected():
  images = _images(1, 13, 21, 3)
  restored = make_restore(_next_pixels, {})(images)
  np.testing.assert_array_equal(restored[0, :-1, :-1], images[0, 1:, 1:])
  np.testing.assert_array_equal(restored[0, -1, :-1], images[0, -2, 1:])
  np.testing.assert_array_equal(restored[0, :-1, -1], images[0, 1:, -2])


@pytest.mark.parametrize(('multiple', 'padded'), [(1, (9, 14)), (4, (12, 16))])
def test_the_network_gets_the_multiple_that_it_asks_for(multiple, padded):
  shapes = []

  def apply(params, images):
    shapes.append(images.shape[1:3])
    return images

  whole_image.make_restore(apply, {}, multiple=multiple)(_images(1, 9, 14, 3))
  assert shapes == [padded]


def test_a_side_of_one_pixel_is_repeated():
  images = _images(1, 1, 9, 3)
  restored = make_restore(_next_pixels, {})(images)
  np.testing.assert_array_equal(restored[0, 0, :-1], images[0, 0, 1:])


def test_output_is_clamped():
  images = _images(2, 8, 8, 3)
  restored = make_restore(_identity, {'gain': jnp.asarray(1.7)})(images)
  np.testing.assert_allclose(restored, np.minimum(1.7 * images, 1), rtol=1e-6)
  assert restored.max() == 1
  assert not make_restore(_identity, {'gain': jnp.asarray(-1.0)})(images).any()


def test_one_and_eight_devices_agree():
  devices = jax.devices()
  assert len(devices) == 8

  def apply(params, images):
    return jnp.sin(3 * images) * params['gain'] + images[:, ::-1] / 4

  params = {'gain': np.float32(0.5)}
  for batch in (1, 5, 8, 11):
    images = _images(batch, 9, 14, 3)
    one = make_restore(apply, params, mesh=make_mesh(devices[:1]))(images)
    eight = make_restore(apply, params, mesh=make_mesh(devices))(images)
    np.testing.assert_allclose(one, eight, atol=1e-6)


def test_the_batch_is_spread_over_the_mesh():
  seen = []

  def apply(params, images):
    jax.debug.inspect_array_sharding(images, callback=seen.append)
    return images

  make_restore(apply, {}, mesh=make_mesh())(_images(3, 8, 8, 3))
  assert seen[0].shard_shape((8, 8, 8, 3)) == (1, 8, 8, 3)


@pytest.mark.parametrize('height', [9, 35, 40])
def test_devices_that_share_the_rows_agree(height):
  shapes = []

  def apply(params, images):
    jax.debug.inspect_array_sharding(
      images, callback=lambda s: shapes.append(s.shard_shape((2, 40, 8, 3)))
    )
    mean = images.mean((1, 2), keepdims=True)
    return dense.conv3x3(images, params['kernel']) * mean

  kernel = np.random.default_rng(0).random((3, 3, 3, 3), np.float32)
  images = _images(2, height, 8, 3)
  one, shared = (
    make_restore(apply, {'kernel': kernel}, mesh=mesh)(images)
    for mesh in (make_mesh(jax.devices()[:1]), make_mesh(space=4))
  )
  np.testing.assert_allclose(one, shared, atol=1e-6)
  # Small images are not split (mesh.MIN_SHARED_ROWS says why).
  assert shapes[-1] == ((1, 40, 8, 3) if height < 32 else (1, 10, 8, 3))


def test_new_parameters_and_padded_sizes_reuse_the_compiled_code():
  traces = []

  def apply(params, images):
    traces.append(images.shape)
    return images * params

  images = _images(1, 16, 16, 3)
  for gain in (0.25, 0.5):
    restored = make_restore(apply, np.float32(gain))(images)
    np.testing.assert_allclose(restored, gain * images)
  make_restore(apply, np.float32(1))(_images(1, 11, 15, 3))
  assert traces == [(8, 16, 16, 3)]


@pytest.mark.parametrize('shape', [(8, 8, 3), (1, 8, 8, 4), (0, 8, 8, 3)])
def test_other_shapes_are_refused(shape):
  restore = make_restore(_identity, {'gain': jnp.ones(())})
  with pytest.raises(ValueError, match='needs .B, H, W, 3.'):
    restore(np.zeros(shape, np.float32))
