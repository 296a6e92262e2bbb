"""Random arrays, and comparisons of functions in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Sizes that 4x4 folding divides, that it does not, and a single row.
SHAPES = [(2, 8, 12, 6), (1, 7, 5, 3), (3, 4, 10, 1), (1, 1, 2, 5)]


def random(seed, *shape):
  # JAX would compile a program for each shape.
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, 'f'))


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
  shape = jax.eval_shape(plain, *arguments)
  cotangent = random(9, *shape.shape).astype(shape.dtype)

  def both(function):
    def value_and_gradients(cotangent, *arguments):
      value, pull = jax.vjp(function, *arguments)
      return value, pull(cotangent)

    return jax.jit(value_and_gradients)(cotangent, *arguments)

  (value, gradients), (expected, expected_gradients) = (
    both(function),
    both(plain),
  )
  assert value.dtype == expected.dtype
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  for actual, wanted in zip(gradients, expected_gradients, strict=True):
    assert actual.shape == wanted.shape
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5 * scale)
