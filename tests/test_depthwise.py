"""Depthwise convolutions and the feed-forward in each form, beside plain ones.

The eight devices of these tests compute with shifted sums; `form` has those
that ask for it done by the native code of a single one too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from same import SHAPES, assert_same_with_gradients, lax_depthwise, random

from mixdtp_jax.mesh import batch_sharding, make_mesh, place
from mixdtp_jax.model import depthwise, native


@pytest.fixture(params=['shifted', 'native'])
def form(request, monkeypatch):
  if request.param == 'native':
    if not native._registered():
      pytest.skip('there is no C++ compiler')
    monkeypatch.setattr(native, 'usable', lambda dtype: dtype == jnp.float32)
  jax.clear_caches()  # of functions traced in the other form
  yield request.param
  jax.clear_caches()


@pytest.mark.parametrize('shape', SHAPES)
def test_depthwise_is_jax_own_in_value_and_gradient(form, shape):
  x, kernel = random(0, *shape), random(1, 3, 3, 1, shape[-1])
  assert_same_with_gradients(
    depthwise.depthwise_conv3x3, lax_depthwise, x, kernel
  )


def test_depthwise_off_the_cpu_is_the_same():
  # The branch that platform_dependent takes elsewhere, run here.
  x, kernel, g = (
    random(0, 2, 6, 9, 4),
    random(1, 3, 3, 1, 4),
    random(2, 2, 6, 9, 4),
  )
  np.testing.assert_allclose(
    depthwise._xla_convolution(x, kernel),
    depthwise._convolution_on_cpu(x, kernel),
    atol=1e-5,
  )
  for xla, on_cpu in zip(
    depthwise._xla_gradients(x, kernel, g),
    depthwise._gradients_on_cpu(x, kernel, g),
    strict=True,
  ):
    np.testing.assert_allclose(xla, on_cpu, atol=1e-4)


def test_depthwise_lowers_to_xla_convolutions_elsewhere_only():
  x, kernel = random(0, 1, 8, 8, 4), random(1, 3, 3, 1, 4)
  gradients = jax.jit(
    jax.grad(lambda x, k: depthwise.depthwise_conv3x3(x, k).sum(), (0, 1))
  )
  trace = gradients.trace(x, kernel)
  for platform, convolutions in (('cpu', False), ('tpu', True), ('cuda', True)):
    text = trace.lower(lowering_platforms=(platform,)).as_text()
    assert ('convolution' in text) == convolutions, platform


def feed_forward_kernels(channels, hidden):
  return (
    random(1, channels, 2 * hidden),
    random(2, 3, 3, 1, 2 * hidden),
    random(3, hidden, channels),
  )


def plain_feed_forward(x, widen, between, narrow):
  a, b = jnp.split(lax_depthwise(x @ widen, between), 2, axis=-1)
  return (jax.nn.gelu(a, approximate=False) * b) @ narrow


@pytest.fixture
def small_cache(monkeypatch):
  """Strips of 8 rows of the images here, which exceed the cache."""
  monkeypatch.setattr(depthwise, '_STRIP', 1)
  monkeypatch.setattr(depthwise, '_CACHE', 4)


@pytest.mark.parametrize(
  'shape', [(2, 16, 5, 6), (1, 19, 7, 4), (2, 9, 1, 6), (1, 8, 3, 4)]
)
def test_feed_forward_in_strips_is_the_plain_one(form, small_cache, shape):
  x, kernels = random(0, *shape), feed_forward_kernels(shape[-1], 5)
  in_strips = str(jax.make_jaxpr(depthwise._in_strips)(x, *kernels))
  assert ('scan' in in_strips) == (shape[1] > 8)
  assert_same_with_gradients(
    depthwise.feed_forward, plain_feed_forward, x, *kernels
  )
  # Where a gradient is asked for there are no strips; without one, there are.
  actual = jax.jit(depthwise.feed_forward)(x, *kernels)
  expected = plain_feed_forward(x, *kernels)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('space', [1, 2])
def test_feed_forward_in_strips_of_images_that_devices_share(
  small_cache, space
):
  mesh = make_mesh(space=space)
  x, kernels = random(0, 8, 64, 6, 4), feed_forward_kernels(4, 5)
  shared = place(x, batch_sharding(mesh))
  actual = jax.jit(depthwise.feed_forward)(shared, *kernels)
  expected = plain_feed_forward(x, *kernels)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


def test_feed_forward_in_strips_rounds_as_at_once_in_bfloat16(small_cache):
  x = random(0, 2, 19, 6, 8).astype(jnp.bfloat16)
  kernels = feed_forward_kernels(8, 5)
  actual = jax.jit(depthwise._in_strips)(x, *kernels)
  expected = jax.jit(depthwise._at_once)(x, *kernels)
  assert actual.dtype == jnp.bfloat16
  scale = float(jnp.abs(expected).max())
  np.testing.assert_allclose(
    actual.astype(np.float32), expected.astype(np.float32), atol=scale / 100
  )


def test_gated_gelu_is_the_exact_gelu_times_the_other_half():
  def plain(x):
    a, b = jnp.split(x, 2, axis=-1)
    return jax.nn.gelu(a, approximate=False) * b

  x = 3 * random(0, 2, 5, 7, 8)
  assert_same_with_gradients(depthwise.gated_gelu, plain, x)
  extreme = jnp.array([[-40.0, -5.0, 0.0, 5.0, 40.0] + [1.0] * 5])
  assert_same_with_gradients(depthwise.gated_gelu, plain, extreme)
