"""Whole runs of a tiny PReNet, which compiles in seconds."""

import json

import jax
import numpy as np
import pytest

from mixdtp_jax.configs import rain100l_robust
from mixdtp_jax.evaluation import network
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.training.guards import CollapseError
from mixdtp_jax.training.loop import train_and_evaluate
from mixdtp_jax.weights.load import load_weights
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures('quick_compiler')


@pytest.fixture(scope='module')
def make_config(tiny_pairs, tmp_path_factory):
  data_dir = tmp_path_factory.mktemp('prepared')

  def config_of(**changes):
    config = tiny.get_prenet_config()
    config.data.source, config.data.data_dir = str(tiny_pairs), str(data_dir)
    config.eval_every_steps = 0
    config.update_from_flattened_dict(changes)
    return config

  return config_of


def test_a_growing_run_resumes_across_its_stages(make_config, tmp_path):
  config = make_config(
    num_train_steps=8,
    growth=((6, 24, 8),),
    ema_decay=0.5,
    checkpoint_every_steps=4,
    **{'schedule.warmup_steps': 1},
  )
  whole = train_and_evaluate(make_recipe(config), str(tmp_path / 'whole'))
  saved = tmp_path / 'whole' / 'checkpoints'
  assert {p.name for p in saved.iterdir()} == {'4', '8'}
  # As if it had been killed after update 4.
  (tmp_path / 'again' / 'checkpoints').mkdir(parents=True)
  (saved / '4').rename(tmp_path / 'again' / 'checkpoints' / '4')
  again = train_and_evaluate(make_recipe(config), str(tmp_path / 'again'))
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  # What is exported is the average.
  _, params = load_weights(tmp_path / 'whole')
  jax.tree.map(np.testing.assert_array_equal, params, whole.ema_params)
  last = jax.tree.map(np.asarray, whole.params)
  assert (
    max(
      np.abs(x - y).max()
      for x, y in zip(
        jax.tree.leaves(params), jax.tree.leaves(last), strict=True
      )
    )
    > 1e-4
  )


@pytest.mark.slow
def test_the_average_is_what_is_evaluated(make_config, tmp_path, monkeypatch):
  shown = []

  def make_restore(apply, params, **kwargs):
    shown.append(params)
    return real(apply, params, **kwargs)

  real = network.make_restore
  monkeypatch.setattr(network, 'make_restore', make_restore)
  config = make_config(num_train_steps=3, ema_decay=0.9)
  state = train_and_evaluate(make_recipe(config), str(tmp_path))
  (params,) = shown
  jax.tree.map(np.testing.assert_array_equal, params, state.ema_params)


def test_devices_that_mesh_space_does_not_divide_are_refused(
  make_config, tmp_path
):
  config = make_config(mesh_space=3)
  with pytest.raises(ValueError, match='mesh_space = 3 does not divide'):
    train_and_evaluate(make_recipe(config), str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize('option', ['', 'elsewhere'])
def test_a_restart_finds_its_programs(make_config, tmp_path, option):
  usual = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', None)  # as a user has it
  try:
    option = option and str(tmp_path / option)
    config = make_config(num_train_steps=3, compilation_cache_dir=option)
    train_and_evaluate(make_recipe(config), str(tmp_path / 'run'))
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update('jax_compilation_cache_dir', usual)
  folder = tmp_path / ('elsewhere' if option else 'run/compiled')
  assert list(folder.glob('jit_train_step-*'))
  assert bool(option) != (tmp_path / 'run' / 'compiled').exists()


_FAR_TOO_FAST = {
  'num_train_steps': 120,
  'schedule.name': 'steps',
  'schedule.boundaries': (),
  'schedule.learning_rate': 3.0,
  'schedule.warmup_steps': 0,
  'loss.coarse_weight': 0.0,
  'collapse_patience': 20,
  'checkpoint_every_steps': 0,
}


@pytest.mark.slow
def test_a_collapse_stops_the_run(make_config, tmp_path):
  config = make_config(**_FAR_TOO_FAST)
  with pytest.raises(CollapseError, match='SSIM of the restored images'):
    train_and_evaluate(make_recipe(config), str(tmp_path))
  assert not (tmp_path / 'results').exists()


@pytest.mark.slow
def test_the_robust_recipe_learns_where_that_one_collapses(
  make_config, tmp_path
):
  robust = rain100l_robust.get_config()
  config = make_config(
    **_FAR_TOO_FAST
    | {
      'loss.final': robust.loss.final,
      'optimizer.clip_norm': robust.optimizer.clip_norm,
      'schedule.warmup_steps': 40,
    }
  )
  assert robust.schedule.warmup_steps >= 40
  train_and_evaluate(make_recipe(config), str(tmp_path))
  results = json.loads((tmp_path / 'results' / 'results.json').read_text())
  assert results['mean']['restored']['rgb']['ssim'] > 0.3
