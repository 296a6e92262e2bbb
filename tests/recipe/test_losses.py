import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from mixdtp_jax.models.mixdtp import Outputs
from mixdtp_jax.recipe.knobs import Loss
from mixdtp_jax.recipe.losses import LOSSES, make_loss

pytestmark = pytest.mark.usefixtures('quick_compiler')

_SHAPE = (2, 13, 17, 3)


def _images(seed):
  return np.random.default_rng(seed).random(_SHAPE)


def _ssim(x, y):
  """Wang et al., equation 13, plane by plane in float64, zeros around."""
  offsets = np.arange(-5, 6)
  window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
  window /= window.sum()

  def blur(plane):
    return signal.convolve2d(plane, window, mode='same')

  def plane_ssim(a, b):
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    return top / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))

  return np.mean(
    [
      plane_ssim(x[i, ..., c], y[i, ..., c])
      for i in range(len(x))
      for c in range(3)
    ]
  )


_EXPECTED = {
  'negative_ssim': lambda x, y: -_ssim(x, y),
  'ssim_as_published': _ssim,
  'mse': lambda x, y: np.mean((x - y) ** 2),
  'rmse': lambda x, y: np.mean(
    np.sqrt(np.mean((x - y) ** 2, axis=(1, 2, 3)) + 0.001**2)
  ),
  'l1': lambda x, y: np.mean(np.abs(x - y)),
  'charbonnier': lambda x, y: np.mean(np.sqrt((x - y) ** 2 + 0.001**2)),
  'ssim_l1': lambda x, y: -0.84 * _ssim(x, y) + 0.16 * np.mean(np.abs(x - y)),
}


def test_every_loss_has_a_formula_here():
  assert set(LOSSES) == set(_EXPECTED)


@pytest.mark.parametrize('name', LOSSES)
def test_is_the_formula(name):
  x, y = _images(0), _images(1)
  y = 0.7 * x + 0.3 * y  # similar, so that SSIM is far from 0
  got = LOSSES[name](jnp.float32(x), jnp.float32(y))
  assert got.shape == ()
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, _EXPECTED[name](x, y), rtol=1e-5)


@pytest.mark.parametrize('name', LOSSES)
def test_descent_approaches_the_clean_image_but_for_the_published_sign(name):
  clean, rainy = jnp.float32(_images(0)), jnp.float32(_images(1))
  toward = jnp.vdot(jax.grad(LOSSES[name])(rainy, clean), clean - rainy)
  assert (toward > 0) if name == 'ssim_as_published' else (toward < 0)


@pytest.mark.parametrize('name', LOSSES)
def test_gradient_of_a_perfect_image_is_finite(name):
  flat = jnp.full(_SHAPE, 0.5)
  assert np.isfinite(jax.grad(LOSSES[name])(flat, flat)).all()


def test_terms_are_weighted():
  final, coarse, clean = (jnp.float32(_images(seed)) for seed in range(3))
  loss = make_loss(Loss('l1', 'mse', 0.25))
  total, terms = loss(Outputs(final, coarse), clean)
  l1 = np.abs(final - clean).mean()
  mse = np.square(coarse - clean).mean()
  assert set(terms) == {'final', 'coarse'}
  np.testing.assert_allclose(terms['final'], l1, rtol=1e-6)
  np.testing.assert_allclose(terms['coarse'], mse, rtol=1e-6)
  np.testing.assert_allclose(total, l1 + 0.25 * mse, rtol=1e-6)


@pytest.mark.parametrize('option', ['final', 'coarse'])
def test_unknown_name_lists_the_choices(option):
  names = {'final': 'l1', 'coarse': 'l1', option: 'psnr'}
  with pytest.raises(ValueError, match=f"loss.{option} = 'psnr'") as error:
    Loss(**names)
  assert all(name in str(error.value) for name in LOSSES)


@pytest.mark.parametrize(
  ('option', 'value'),
  [('final', 'l1'), ('coarse', 'l1'), ('coarse_weight', 0.75)],
)
def test_every_option_changes_the_loss(option, value):
  options = {'final': 'mse', 'coarse': 'mse', 'coarse_weight': 0.5}
  outputs = Outputs(jnp.float32(_images(0)), jnp.float32(_images(1)))
  clean = jnp.float32(_images(2))
  before, _ = make_loss(Loss(**options))(outputs, clean)
  after, _ = make_loss(Loss(**options | {option: value}))(outputs, clean)
  assert before != after
