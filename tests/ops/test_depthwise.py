"""Depthwise convolutions in each form, against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.ops import depthwise
from tests.helpers.same import (
  SHAPES,
  assert_same_with_gradients,
  lax_depthwise,
  random,
)

pytestmark = pytest.mark.usefixtures('quick_compiler')


@pytest.mark.parametrize('shape', SHAPES)
def test_depthwise_is_jax_own_in_value_and_gradient(cpu_form, shape):
  x, kernel = random(0, *shape), random(1, 3, 3, 1, shape[-1])
  assert_same_with_gradients(
    depthwise.depthwise_conv3x3, lax_depthwise, x, kernel
  )


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('platform', ['tpu', 'gpu'])
def test_depthwise_off_the_cpu_is_the_same(platform, dtype):
  # The branches that platform_dependent takes elsewhere, run here.
  forms = {
    'tpu': (depthwise._xla_convolution, depthwise._xla_gradients),
    'gpu': (depthwise.shifted_convolution, depthwise.shifted_gradients),
  }
  convolution, gradients = forms[platform]
  x, g = (random(seed, 2, 6, 9, 4).astype(dtype) for seed in (0, 2))
  kernel = random(1, 3, 3, 1, 4)
  expected, pull = jax.vjp(lax_depthwise, x.astype(jnp.float32), kernel)
  expected = expected, *pull(g.astype(jnp.float32))
  rounding = 1e-5 if dtype == jnp.float32 else 1e-2
  actual = convolution(x, kernel), *gradients(x, kernel, g)
  assert [a.dtype for a in actual] == [dtype, dtype, jnp.float32]
  for one, other in zip(actual, expected, strict=True):
    scale = float(jnp.abs(other).max())
    np.testing.assert_allclose(
      one.astype(jnp.float32), other, atol=rounding * scale
    )


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'rocm', 'tpu'])
def test_depthwise_lowers_to_convolutions_on_a_tpu_only(platform):
  x, kernel = random(0, 1, 8, 8, 4), random(1, 3, 3, 1, 4)
  gradients = jax.jit(
    jax.grad(lambda x, k: depthwise.depthwise_conv3x3(x, k).sum(), (0, 1))
  )
  trace = gradients.trace(x, kernel)
  text = trace.lower(lowering_platforms=(platform,)).as_text()
  assert ('convolution' in text) == (platform == 'tpu')
