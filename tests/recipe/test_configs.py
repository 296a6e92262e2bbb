"""Every recipe in configs/: it fits the code and does what it says."""

import math
import pathlib

import jax
import numpy as np
import pytest

from mixdtp_jax.configs import (
  ablation,
  published,
  rain100l,
  rain100l_small,
)
from mixdtp_jax.data.datasets.registry import DATASETS
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.models.mixdtp import Outputs
from mixdtp_jax.recipe.config_file import flat_config, load_recipe
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.losses import make_loss, negative_ssim
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.recipe.schedules import make_schedule

_CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize(
  'path', sorted(_CONFIGS.glob('[a-z]*.py')), ids=lambda p: p.stem
)
def test_every_configuration_fits_the_code(path):
  recipe = load_recipe(path)
  make_optimizer(recipe)
  make_loss(recipe.loss)
  assert {recipe.data.name, *dict(recipe.data.mixture)} <= set(DATASETS)


def _params(config):
  return abstract_params(make_model_config(config.model))


def test_the_small_network_is_small():
  params = _params(rain100l_small.get_config())
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(params)) <= 2e6


def _difference(config, base):
  """Returns the options of `config` with other values than in `base`."""
  base = flat_config(base.to_dict())
  return {
    k: v for k, v in flat_config(config.to_dict()).items() if v != base[k]
  }


_ABLATIONS = {
  'full': {},
  'without_detail_dilation': {'model.detail_dilation': False},
  'without_coupling': {'model.coupling': False},
  'without_refinement': {'model.steps': 0},
  'steps1': {'model.steps': 1},
  'steps2': {'model.steps': 2},
  'steps3': {'model.steps': 3},
  'steps4': {'model.steps': 4},
  'steps5': {'model.steps': 5},
  'steps6': {'model.steps': 6},
  'loss_l1': {'loss.final': 'l1'},
  'loss_mse': {'loss.final': 'mse'},
  'loss_charbonnier': {'loss.final': 'charbonnier'},
  'loss_ssim_l1': {'loss.final': 'ssim_l1'},
  'loss_final_only': {'loss.coarse_weight': 0.0},
  'loss_as_published': {'loss.coarse': 'ssim_as_published'},
  'without_turns': {'data.rotate': False},
}


def test_every_ablation_is_known_here():
  assert set(ablation.ABLATIONS) == set(_ABLATIONS)


@pytest.mark.parametrize('name', _ABLATIONS)
@pytest.mark.parametrize('prefix', ['', 'small/'])
def test_an_ablation_changes_what_it_names(prefix, name):
  recipe = (rain100l_small if prefix else rain100l).get_config()
  config = ablation.get_config(prefix + name)
  # A recipe that already has the ablation's value is itself the ablation.
  already = flat_config(recipe.to_dict())
  changes = {k: v for k, v in _ABLATIONS[name].items() if v != already[k]}
  assert _difference(config, recipe) == changes
  assert bool(changes) or name in ('full', f'steps{recipe.model.steps}')
  make_optimizer(make_recipe(config))


@pytest.mark.parametrize('module', ['detail_dilation', 'progressive'])
def test_an_ablated_module_has_no_parameters(module):
  name = {'progressive': 'refinement'}.get(module, module)
  config = ablation.get_config(f'small/without_{name}')
  assert module in _params(rain100l_small.get_config())
  assert module not in _params(config)


def test_the_losses_of_the_ablations_differ():
  random = np.random.default_rng(0)
  final, coarse, clean = random.random((3, 1, 16, 16, 3)).astype(np.float32)
  losses = {
    name: make_loss(make_recipe(ablation.get_config(name)).loss)(
      Outputs(final, coarse), clean
    )[0].item()
    for name in _ABLATIONS
    if name.startswith(('full', 'loss_'))
  }
  assert len(set(losses.values())) == len(losses) == 7


def test_without_refinement_a_negated_channel_costs():
  random = np.random.default_rng(0)
  clean = random.random((1, 16, 16, 3)).astype(np.float32)
  negated = clean * np.float32([-1, 1, 1])
  recipe = make_recipe(ablation.get_config('without_refinement'))
  loss = make_loss(recipe.loss)
  for image, mse in ((clean, 0.0), (negated, 4 * (clean[..., 0] ** 2).mean())):
    total, _ = loss(Outputs(image, image), clean)
    # SSIM alone hardly sees the sign of a channel.
    similarity = -negative_ssim(image, clean).item()
    assert similarity > 0.97
    assert total.item() == pytest.approx(-similarity + 0.5 * mse / 3, rel=1e-5)


def test_an_unknown_ablation_lists_the_names():
  with pytest.raises(ValueError, match="'nonsense': choose") as error:
    ablation.get_config('nonsense')
  for name in ('steps6', 'small/without_coupling'):
    assert name in str(error.value)


def test_published_differs_from_the_paper_in_its_switches_alone():
  config, paper = published.get_config(), rain100l.get_config()
  assert _difference(config, paper) == {
    'data.crops': 'second_cell',
    'data.transpose_landscape': True,
    'data.flip': False,
    'data.rotate': False,
    'batch_size': 3,
    'num_train_steps': 300 * 67,
    'loss.coarse': 'ssim_as_published',
    'schedule.boundaries': [11 * 67, 51 * 67, 81 * 67],
    'eval_crop_multiple': 32,
  }


def test_published_rates_begin_one_epoch_late():
  schedule = make_schedule(make_recipe(published.get_config()))

  def rates(epoch):
    """Returns the rates of the first and last update of an epoch of 67."""
    return [float(schedule(epoch * 67)), float(schedule(epoch * 67 + 66))]

  for epoch, rate in (
    (0, 1e-4), (10, 1e-4), (11, 2e-5), (50, 2e-5), (51, 4e-6), (80, 4e-6),
    (81, 8e-7), (299, 8e-7),
  ):  # fmt: skip
    np.testing.assert_allclose(rates(epoch), [rate] * 2, rtol=1e-5)
