"""Dense functions against PyTorch, JAX's own, and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mixdtp_jax.ops import dense, depthwise
from tests.helpers.same import SHAPES, assert_same_with_gradients, random

pytestmark = pytest.mark.usefixtures('quick_compiler')


def lax_conv3x3(x, kernel):
  return lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    ((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=lax.Precision.HIGHEST,
  )


# Native code convolves all but the first of the last three.
@pytest.mark.parametrize(
  ('shape', 'outputs'),
  [
    *((shape, 4) for shape in SHAPES),
    ((1, 6, 5, 17), 4),
    ((1, 6, 5, 17), 20),
    ((1, 6, 5, 32), 32),
  ],
)
def test_conv3x3_is_jax_own_in_value_and_gradient(cpu_form, shape, outputs):
  x, kernel = random(0, *shape), random(1, 3, 3, shape[-1], outputs)
  kernel /= (9 * shape[-1]) ** 0.5
  assert_same_with_gradients(dense.conv3x3, lax_conv3x3, x, kernel)


@pytest.mark.parametrize('shape', SHAPES)
def test_sum_of_squares_is_the_plain_one_in_value_and_gradient(shape):
  def plain(x):
    return (x**2).sum((1, 2))

  assert_same_with_gradients(dense.sum_of_squares, plain, random(0, *shape))


def test_sum_of_squares_keeps_narrow_images_as_they_are():
  x = random(0, 2, 5, 7, 3).astype(jnp.bfloat16)
  value, pull = jax.vjp(dense.sum_of_squares, x)
  exact, exact_pull = jax.vjp(dense.sum_of_squares, x.astype(jnp.float32))
  np.testing.assert_array_equal(value, exact)
  g = random(1, 2, 3)
  (expected,) = exact_pull(g)
  (actual,) = pull(g)
  np.testing.assert_array_equal(actual, expected.astype(jnp.bfloat16))
  images = [a.dtype for a in jax.tree.leaves(pull) if a.size == x.size]
  assert images == [jnp.bfloat16]


@pytest.mark.parametrize(
  ('gradients', 'kernel_shape', 'features'),
  [
    (dense._conv3x3_bwd, (3, 3, 6, 4), 4),
    (dense._conv1x1_bwd, (6, 4), 4),
    (
      lambda residuals, g: depthwise._xla_gradients(*residuals, g),
      (3, 3, 1, 6),
      6,
    ),
    (
      lambda residuals, g: depthwise.shifted_gradients(*residuals, g),
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


@pytest.mark.parametrize('shape', SHAPES)
def test_conv1x1_is_a_convolution_in_value_and_gradient(shape):
  plain = functools.partial(
    jnp.einsum, 'bhwc,cd->bhwd', precision=lax.Precision.HIGHEST
  )
  assert_same_with_gradients(
    dense.conv1x1, plain, random(0, *shape), random(1, shape[-1], 7)
  )
