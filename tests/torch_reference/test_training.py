"""Each loss, its gradient, and the optimizer, against JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import tiny

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from mixdtp_jax.models.mixdtp import Outputs
from mixdtp_jax.recipe import losses, schedules
from mixdtp_jax.recipe import optimizer as optimizer_lib
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.torch_reference import training
from mixdtp_jax.torch_reference.inference import to_nchw, to_nhwc

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures('quick_compiler')]

torch.set_num_threads(1)

_CPU = torch.device('cpu')


def _images(count, seed=0):
  """Clean ones (2, 13, 17, 3), and others that are like them."""
  random = np.random.default_rng(seed)
  clean, *noise = random.random((count, 2, 13, 17, 3), np.float32)
  return [clean, *(0.7 * clean + 0.3 * other for other in noise)]


def test_the_same_losses_exist():
  assert set(training.LOSSES) == set(losses.LOSSES)


@pytest.mark.parametrize('name', losses.LOSSES)
def test_a_loss_and_its_gradient_are_those_of_jax(name):
  clean, restored = _images(2)
  want, gradient = jax.value_and_grad(losses.LOSSES[name])(restored, clean)
  tensor = to_nchw(restored, _CPU).requires_grad_()
  got = training.LOSSES[name](tensor, to_nchw(clean, _CPU))
  got.backward()
  assert got.item() == pytest.approx(float(want), rel=1e-6)
  np.testing.assert_allclose(
    to_nhwc(tensor.grad), gradient, atol=2e-5 * np.abs(gradient).max()
  )


class _Offsets(torch.nn.Module):
  """The smallest network: adds parameters to an image."""

  def __init__(self):
    super().__init__()
    self.final = torch.nn.Parameter(torch.full((3, 1, 1), 0.1))
    self.coarse = torch.nn.Parameter(torch.full((3, 1, 1), -0.2))
    self.unused = torch.nn.Parameter(torch.ones(()))

  def forward(self, rainy):
    return rainy + self.final, rainy * (1 + self.coarse)


def _steps_of_torch(config, batches):
  trainer = training.Trainer(make_recipe(config), _Offsets())
  schedule = schedules.make_schedule(make_recipe(config))
  values = []
  for number, (clean, rainy) in enumerate(batches):
    placed = trainer.place({'rainy': rainy, 'clean': clean})
    values.append(trainer.step(placed, float(schedule(number))))
  offsets = [trainer.network.final, trainer.network.coarse]
  return values, [p.detach().ravel() for p in offsets]


def _steps_of_jax(config, batches):
  loss = losses.make_loss(make_recipe(config).loss)
  optimizer = optimizer_lib.make_optimizer(make_recipe(config))

  @jax.jit
  def step(params, opt_state, rainy, clean):
    def loss_fn(params):
      final, coarse = params
      return loss(Outputs(rainy + final, rainy * (1 + coarse)), clean)[0]

    value, gradients = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    params = [p + u for p, u in zip(params, updates, strict=True)]
    return value, params, opt_state

  params = [jnp.full(3, 0.1), jnp.full(3, -0.2)]
  opt_state, values = optimizer.init(params), []
  for clean, rainy in batches:
    value, params, opt_state = step(params, opt_state, rainy, clean)
    values.append(float(value))
  return values, params


# Each changes the result by far more than the tolerance: see the second test.
_RECIPES = {
  'adam': {},
  'adamw': {'optimizer.name': 'adamw', 'optimizer.weight_decay': 0.5},
  'clipped': {'optimizer.clip_norm': 0.05},
  'not_clipped': {'optimizer.clip_norm': 50.0},
  'betas': {'optimizer.b1': 0.5, 'optimizer.b2': 0.7},
  'eps': {'optimizer.eps': 0.3},
  'rates': {'schedule.warmup_steps': 0},
  'final': {'loss.final': 'l1'},
  'coarse': {'loss.coarse': 'charbonnier'},
  'coarse_weight': {'loss.coarse_weight': 2.0},
}


def _config(recipe):
  config = tiny.get_config()
  config.loss.final = 'mse'  # compiles ten times faster than SSIM
  with config.unlocked():
    config.update_from_flattened_dict(_RECIPES[recipe])
  return config


@pytest.mark.parametrize('recipe', _RECIPES)
def test_updates_are_those_of_jax(recipe):
  batches = [_images(2, seed) for seed in range(4)]
  got = _steps_of_torch(_config(recipe), batches)
  want = _steps_of_jax(_config(recipe), batches)
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
  for ours, theirs in zip(got[1], want[1], strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_muon_is_refused():
  config = tiny.get_config()
  config.optimizer.name = 'muon'
  with pytest.raises(ValueError, match='optimizer.name=adam'):
    training.Trainer(make_recipe(config), _Offsets())


@pytest.mark.parametrize('recipe', sorted(set(_RECIPES) - {'adam'}))
def test_every_option_matters(recipe):
  batches = [_images(2, seed) for seed in range(4)]
  _, plain = _steps_of_torch(_config('adam'), batches)
  _, other = _steps_of_torch(_config(recipe), batches)
  changed = max(
    float((a - b).abs().max()) for a, b in zip(plain, other, strict=True)
  )
  # A limit that is not reached does nothing.
  assert (changed == 0) if recipe == 'not_clipped' else (changed > 1e-5)
