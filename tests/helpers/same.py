"""Random arrays, and comparisons of functions in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Sizes that 4x4 folding divides, that it does not, and a single row.
SHAPES = [(2, 8, 12, 6), (1, 7, 5, 3), (3, 4, 10, 1), (1, 1, 2, 5)]


def random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


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
  """Checks for equal values, and equal gradients of a random projection."""
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
