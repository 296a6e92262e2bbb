"""The network's pure functions against PyTorch, JAX's own, and themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mixdtp_jax.mesh import batch_sharding, make_mesh, place
from mixdtp_jax.model import ops

# Sizes that 4x4 folding divides, that it does not, and a single row.
SHAPES = [(2, 8, 12, 6), (1, 7, 5, 3), (3, 4, 10, 1), (1, 1, 2, 5)]


def random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def to_torch(x):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


def from_torch(x):
  return x.numpy().transpose(0, 2, 3, 1)


def lax_depthwise(x, kernel):
  return lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    ((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
    precision=lax.Precision.HIGHEST,
  )


def assert_same_with_gradients(function, plain, *arguments):
  """Equal values, and equal gradients of a random projection."""
  value, vjp = jax.vjp(jax.jit(function), *arguments)
  expected, expected_vjp = jax.vjp(plain, *arguments)
  assert value.dtype == expected.dtype
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  cotangent = random(9, *value.shape).astype(value.dtype)
  for actual, wanted in zip(
    vjp(cotangent), expected_vjp(cotangent), strict=True
  ):
    assert actual.shape == wanted.shape
    scale = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize('shape', SHAPES)
def test_depthwise_is_jax_own_in_value_and_gradient(shape):
  x, kernel = random(0, *shape), random(1, 3, 3, 1, shape[-1])
  assert_same_with_gradients(ops.depthwise_conv3x3, lax_depthwise, x, kernel)


def lax_conv3x3(x, kernel):
  return lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    ((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=lax.Precision.HIGHEST,
  )


@pytest.mark.parametrize('shape', SHAPES)
def test_conv3x3_is_jax_own_in_value_and_gradient(shape):
  x, kernel = random(0, *shape), random(1, 3, 3, shape[-1], 4)
  assert_same_with_gradients(ops.conv3x3, lax_conv3x3, x, kernel)


@pytest.mark.parametrize(
  ('gradients', 'kernel_shape', 'features'),
  [
    (ops._conv3x3_bwd, (3, 3, 6, 4), 4),
    (ops._conv1x1_bwd, (6, 4), 4),
    (lambda residuals, g: ops._xla_gradients(*residuals, g), (3, 3, 1, 6), 6),
    (
      lambda residuals, g: ops._shifted_gradients(*residuals, g),
      (3, 3, 1, 6),
      6,
    ),
  ],
  ids=['conv3x3', 'conv1x1', 'depthwise elsewhere', 'depthwise on a CPU'],
)
def test_kernel_gradients_are_summed_in_float32(
  gradients, kernel_shape, features
):
  x = random(0, 2, 32, 32, 6).astype(jnp.bfloat16)
  g = random(2, 2, 32, 32, features).astype(jnp.bfloat16)
  kernel = random(1, *kernel_shape)
  _, narrow = gradients((x, kernel), g)
  _, exact = gradients((x.astype(jnp.float32), kernel), g.astype(jnp.float32))
  assert narrow.dtype == jnp.float32
  # A sum rounded to bfloat16 would be off by up to 1 part in 256.
  scale = float(jnp.abs(exact).max())
  np.testing.assert_allclose(narrow, exact, atol=scale * 1e-5)


def test_depthwise_off_the_cpu_is_the_same():
  # The branch that platform_dependent takes elsewhere, run here.
  x, kernel, g = (
    random(0, 2, 6, 9, 4),
    random(1, 3, 3, 1, 4),
    random(2, 2, 6, 9, 4),
  )
  np.testing.assert_allclose(
    ops._xla_depthwise(x, kernel), ops._shifted_sum(x, kernel), atol=1e-5
  )
  for xla, shifted in zip(
    ops._xla_gradients(x, kernel, g),
    ops._shifted_gradients(x, kernel, g),
    strict=True,
  ):
    np.testing.assert_allclose(xla, shifted, atol=1e-4)


def test_depthwise_lowers_to_xla_convolutions_elsewhere_only():
  x, kernel = random(0, 1, 8, 8, 4), random(1, 3, 3, 1, 4)
  gradients = jax.jit(
    jax.grad(lambda x, k: ops.depthwise_conv3x3(x, k).sum(), (0, 1))
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


def plain_feed_forward(x, widen, depthwise, narrow):
  a, b = jnp.split(lax_depthwise(x @ widen, depthwise), 2, axis=-1)
  return (jax.nn.gelu(a, approximate=False) * b) @ narrow


@pytest.fixture
def small_cache(monkeypatch):
  """Strips of 8 rows of the images here, which exceed the cache."""
  monkeypatch.setattr(ops, '_STRIP', 1)
  monkeypatch.setattr(ops, '_CACHE', 4)


@pytest.mark.parametrize(
  'shape', [(2, 16, 5, 6), (1, 19, 7, 4), (2, 9, 1, 6), (1, 8, 3, 4)]
)
def test_feed_forward_in_strips_is_the_plain_one(small_cache, shape):
  x, kernels = random(0, *shape), feed_forward_kernels(shape[-1], 5)
  in_strips = str(jax.make_jaxpr(ops._feed_forward_in_strips)(x, *kernels))
  assert ('scan' in in_strips) == (shape[1] > 8)
  assert_same_with_gradients(ops.feed_forward, plain_feed_forward, x, *kernels)
  # Where a gradient is asked for there are no strips; without one, there are.
  actual = jax.jit(ops.feed_forward)(x, *kernels)
  expected = plain_feed_forward(x, *kernels)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('space', [1, 2])
def test_feed_forward_in_strips_of_images_that_devices_share(
  small_cache, space
):
  mesh = make_mesh(space=space)
  x, kernels = random(0, 8, 64, 6, 4), feed_forward_kernels(4, 5)
  shared = place(x, batch_sharding(mesh))
  actual = jax.jit(ops.feed_forward)(shared, *kernels)
  expected = plain_feed_forward(x, *kernels)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


def test_feed_forward_in_strips_rounds_as_at_once_in_bfloat16(small_cache):
  x = random(0, 2, 19, 6, 8).astype(jnp.bfloat16)
  kernels = feed_forward_kernels(8, 5)
  actual = jax.jit(ops._feed_forward_in_strips)(x, *kernels)
  expected = jax.jit(ops._feed_forward_at_once)(x, *kernels)
  assert actual.dtype == jnp.bfloat16
  scale = float(jnp.abs(expected).max())
  np.testing.assert_allclose(
    actual.astype(np.float32), expected.astype(np.float32), atol=scale / 100
  )


@pytest.mark.parametrize('shape', SHAPES)
def test_conv1x1_is_a_convolution_in_value_and_gradient(shape):
  plain = functools.partial(
    jnp.einsum, 'bhwc,cd->bhwd', precision=lax.Precision.HIGHEST
  )
  assert_same_with_gradients(
    ops.conv1x1, plain, random(0, *shape), random(1, shape[-1], 7)
  )


def test_gated_gelu_is_the_exact_gelu_times_the_other_half():
  def plain(x):
    a, b = jnp.split(x, 2, axis=-1)
    return jax.nn.gelu(a, approximate=False) * b

  x = 3 * random(0, 2, 5, 7, 8)
  assert_same_with_gradients(ops.gated_gelu, plain, x)
  extreme = jnp.array([[-40.0, -5.0, 0.0, 5.0, 40.0] + [1.0] * 5])
  assert_same_with_gradients(ops.gated_gelu, plain, extreme)


def test_pixel_shuffles_have_pytorch_channel_order():
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  x = random(0, 2, 4, 6, 8)
  down = from_torch(torch.pixel_unshuffle(to_torch(x), 2))
  np.testing.assert_array_equal(ops.pixel_unshuffle(x), down)
  up = from_torch(torch.pixel_shuffle(to_torch(x), 2))
  np.testing.assert_array_equal(ops.pixel_shuffle(x), up)
  np.testing.assert_array_equal(ops.pixel_shuffle(ops.pixel_unshuffle(x)), x)


@pytest.mark.parametrize(
  ('function', 'factor'), [(ops.bilinear_half, 0.5), (ops.bilinear_double, 2)]
)
def test_bilinear_is_pytorch_interpolate(function, factor):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  for shape in ((2, 8, 6, 3), (1, 2, 4, 5)):
    x = random(0, *shape)
    expected = torch.nn.functional.interpolate(
      to_torch(x), scale_factor=factor, mode='bilinear', align_corners=False
    )
    np.testing.assert_allclose(function(x), from_torch(expected), atol=1e-6)
