"""The gated feed-forward in each form, against a plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.ops import dense, depthwise, feed_forward
from mixdtp_jax.runtime.mesh import batch_sharding, make_mesh, place
from mixdtp_jax.tools.plan.program import Program
from tests.helpers.h100 import compiled_text, needs_cuda_plugin
from tests.helpers.same import assert_same_with_gradients, lax_depthwise, random

pytestmark = pytest.mark.usefixtures('quick_compiler')


def feed_forward_kernels(channels, hidden):
  return (
    random(1, channels, 2 * hidden),
    random(2, 3, 3, 1, 2 * hidden),
    random(3, hidden, channels),
  )


def plain_gate(wide, between):
  a, b = jnp.split(lax_depthwise(wide, between), 2, axis=-1)
  return jax.nn.gelu(a, approximate=False) * b


def plain_feed_forward(x, widen, between, narrow):
  return plain_gate(x @ widen, between) @ narrow


@pytest.fixture
def small_cache(monkeypatch):
  """Makes strips of 8 rows, by a cache smaller than the images here."""
  monkeypatch.setattr(feed_forward, '_STRIP', 1)
  monkeypatch.setattr(feed_forward, '_CACHE', 4)


@pytest.mark.parametrize(
  'shape', [(2, 16, 5, 6), (1, 19, 7, 4), (2, 9, 1, 6), (1, 8, 3, 4)]
)
def test_feed_forward_in_strips_is_the_plain_one(cpu_form, small_cache, shape):
  x, kernels = random(0, *shape), feed_forward_kernels(shape[-1], 5)
  in_strips = str(jax.make_jaxpr(feed_forward._in_strips)(x, *kernels))
  assert ('scan' in in_strips) == (shape[1] > 8)
  assert_same_with_gradients(
    feed_forward.feed_forward, plain_feed_forward, x, *kernels
  )
  # Where a gradient is asked for there are no strips; without one, there are.
  actual = jax.jit(feed_forward.feed_forward)(x, *kernels)
  expected = plain_feed_forward(x, *kernels)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', [(2, 6, 9, 10), (1, 1, 1, 2), (1, 5, 8, 34)])
def test_gradients_of_the_gate_on_a_gpu_are_the_plain_ones(shape, dtype):
  wide = random(0, *shape).astype(dtype)
  kernel = random(1, 3, 3, 1, shape[-1])
  g = random(2, *shape[:-1], shape[-1] // 2).astype(dtype)
  expected, pull = jax.vjp(plain_gate, wide.astype(jnp.float32), kernel)
  expected = *pull(g.astype(jnp.float32)), expected
  actual = feed_forward._gate_gradients_on_gpu(wide, kernel, None, None, g)
  rounding = 1e-5 if dtype == jnp.float32 else 1e-2
  assert [a.dtype for a in actual] == [dtype, jnp.float32, dtype]
  for one, other in zip(actual, expected, strict=True):
    scale = float(jnp.abs(other).max())
    np.testing.assert_allclose(
      one.astype(jnp.float32), other, atol=rounding * scale
    )


@pytest.mark.usefixtures('eight_devices')
@pytest.mark.parametrize('space', [1, 2])
def test_feed_forward_in_strips_of_images_that_devices_share(
  small_cache, space
):
  mesh = make_mesh(space=space)
  x, kernels = random(0, 8, 64, 6, 4), feed_forward_kernels(4, 5)
  shared = place(x, batch_sharding(mesh))
  actual = jax.jit(feed_forward.feed_forward)(shared, *kernels)
  expected = plain_feed_forward(x, *kernels)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


def test_feed_forward_in_strips_rounds_as_at_once_in_bfloat16(small_cache):
  x = random(0, 2, 19, 6, 8).astype(jnp.bfloat16)
  kernels = feed_forward_kernels(8, 5)
  actual = jax.jit(feed_forward._in_strips)(x, *kernels)
  expected = jax.jit(feed_forward._at_once)(x, *kernels)
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
  assert_same_with_gradients(feed_forward.gated_gelu, plain, x)
  extreme = jnp.array([[-40.0, -5.0, 0.0, 5.0, 40.0] + [1.0] * 5])
  assert_same_with_gradients(feed_forward.gated_gelu, plain, extreme)


def _gradients(x, *kernels):
  return jax.grad(
    lambda *arguments: feed_forward.feed_forward(*arguments).sum(),
    argnums=(0, 1, 2, 3),
  )(x, *kernels)


@pytest.mark.parametrize(
  ('platform', 'convolutions'), [('cuda', 0), ('rocm', 0), ('tpu', 3)]
)
def test_only_a_tpu_is_given_convolutions(platform, convolutions):
  x, kernels = random(0, 1, 8, 8, 4), feed_forward_kernels(4, 5)
  lowered = (
    jax.jit(_gradients).trace(x, *kernels).lower(lowering_platforms=(platform,))
  )
  assert lowered.as_text().count('stablehlo.convolution') == convolutions


_WIDE = jax.ShapeDtypeStruct((2, 64, 64, 96), jnp.bfloat16)
_GRADIENT = jax.ShapeDtypeStruct((2, 64, 64, 48), jnp.bfloat16)
_KERNEL = jax.ShapeDtypeStruct((3, 3, 1, 96), jnp.float32)


def gate_gradients_on_gpu(wide, kernel, g):
  return feed_forward._gate_gradients_on_gpu(wide, kernel, None, None, g)


@needs_cuda_plugin
def test_a_gpus_gradient_reads_and_writes_less_than_cudnns():
  def cudnns(wide, kernel, g):
    convolution = depthwise._xla_convolution
    between = convolution(wide, kernel)
    gate, pull = jax.vjp(feed_forward.gated_gelu, between)
    gradients = depthwise._xla_gradients(wide, kernel, *pull(g))
    return *gradients, gate

  cudnn, shifted = (
    compiled_text(form, _WIDE, _KERNEL, _GRADIENT)
    for form in (cudnns, gate_gradients_on_gpu)
  )
  assert '__cudnn$conv' in cudnn
  assert '__cudnn$conv' not in shifted
  less = Program(shifted, 1).memory_traffic()  # 0.39 of it with JAX 0.10.2
  assert less < Program(cudnn, 1).memory_traffic() / 2


@needs_cuda_plugin
def test_a_gpus_gradient_is_written_in_its_own_dtype(monkeypatch):
  def traffic():
    text = compiled_text(gate_gradients_on_gpu, _WIDE, _KERNEL, _GRADIENT)
    return Program(text, 1).memory_traffic()

  rounded = traffic()
  monkeypatch.setattr(feed_forward, 'as_rounded', lambda arrays: arrays)
  assert rounded < 0.75 * traffic()  # 0.57 of it with JAX 0.10.2


@pytest.mark.parametrize('shape', [(0, 4, 5, 4), (2, 0, 5, 4), (2, 4, 0, 4)])
def test_empty_images_have_empty_values_and_no_gradients(shape):
  x, kernels = jnp.zeros(shape), feed_forward_kernels(4, 3)
  functions = [
    (feed_forward.feed_forward, kernels),
    (depthwise.depthwise_conv3x3, [random(1, 3, 3, 1, 4)]),
    (dense.conv3x3, [random(1, 3, 3, 4, 4)]),
  ]
  for function, weights in functions:
    value, gradients = jax.vjp(function, x, *weights)
    assert value.shape == shape
    for weight, gradient in zip(weights, gradients(value)[1:], strict=True):
      np.testing.assert_array_equal(gradient, np.zeros(weight.shape))
