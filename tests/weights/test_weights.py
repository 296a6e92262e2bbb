import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights.folder import save_weights
from mixdtp_jax.weights.load import load_params, load_weights
from mixdtp_jax.weights.pth import to_torch, write_pth
from mixdtp_jax.weights.run import load_run_config
from tests.helpers import tiny

_CFG = dataclasses.replace(make_model_config(tiny.get_config().model), steps=2)


@functools.cache
def _params(cfg):
  """Parameters in which no two numbers are alike."""
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: random.standard_normal(x.shape, x.dtype), abstract_params(cfg)
  )


def _assert_loads(path, cfg, *, steps=None):
  got, params = load_weights(path, steps=steps)
  assert got == cfg
  jax.tree.map(np.testing.assert_array_equal, params, _params(_CFG))


def _save_run(workdir, step=3):
  config = tiny.get_config()
  config.model.steps = 2
  params = jax.tree.map(jnp.asarray, _params(_CFG))
  state = TrainState(jnp.int32(step), params, {'count': jnp.int32(step)})
  with saving.make_manager(workdir) as manager:
    saving.save(manager, state, config)
  return config


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('weights') / 'new' / 'saved'
  save_weights(folder, _CFG, jax.tree.map(jnp.asarray, _params(_CFG)))
  return folder


def test_a_weights_folder(folder):
  _assert_loads(folder, _CFG)
  _assert_loads(str(folder), _CFG)
  assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_weights_folder_has_the_permissions_of_any_other(folder, tmp_path):
  plain = tmp_path / 'plain'
  plain.mkdir()
  assert folder.stat().st_mode == plain.stat().st_mode


def test_a_workdir(tmp_path):
  config = _save_run(tmp_path)
  _assert_loads(tmp_path, _CFG)
  loaded = load_run_config(tmp_path)
  assert loaded.seed == config.seed
  assert tuple(loaded.schedule.boundaries) == config.schedule.boundaries


def test_a_pth(tmp_path):
  pytest.importorskip('torch')
  write_pth(to_torch(_params(_CFG), _CFG), tmp_path / 'weights.pth')
  # Its shapes do not tell the steps: 3 is what was published.
  published = dataclasses.replace(_CFG, steps=3)
  _assert_loads(tmp_path / 'weights.pth', published)
  _assert_loads(tmp_path / 'weights.pth', _CFG, steps=2)


def test_steps_can_be_changed(folder):
  _assert_loads(folder, dataclasses.replace(_CFG, steps=5), steps=5)


def test_steps_need_a_refinement(tmp_path):
  plain = dataclasses.replace(_CFG, steps=0)
  save_weights(tmp_path / 'plain', plain, _params(plain))
  with pytest.raises(ValueError, match='steps = 2: the weights have no'):
    load_weights(tmp_path / 'plain', steps=2)


def test_a_start_may_differ_in_what_parameters_do_not_depend_on(folder):
  for changes in ({}, {'steps': 5}, {'scan_unroll': 2, 'dtype': 'bfloat16'}):
    params = load_params(folder, dataclasses.replace(_CFG, **changes))
    jax.tree.map(np.testing.assert_array_equal, params, _params(_CFG))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'width': 16, 'detail_dilation': False},
      'model.width: there 8, here 16; model.detail_dilation: there True, here',
    ),
    ({'steps': 0}, 'model.steps: there some, here 0'),
  ],
)
def test_a_start_for_another_network_is_refused(folder, changes, message):
  with pytest.raises(ValueError, match=message) as error:
    load_params(folder, dataclasses.replace(_CFG, **changes))
  assert str(folder) in str(error.value)
  assert 'heads' not in str(error.value)


@pytest.mark.parametrize('made', ['', 'other', 'checkpoints'])
def test_where_no_weights_are(tmp_path, made):
  folder = tmp_path / 'run'
  if made:
    (folder / made).mkdir(parents=True)
  for load in (load_weights, load_run_config):
    with pytest.raises(FileNotFoundError, match=f'{folder}: no weights'):
      load(folder)
  # Looking for weights makes no folders.
  assert folder.exists() == bool(made)


def test_a_missing_pth(tmp_path):
  with pytest.raises(FileNotFoundError, match='gone.pth'):
    load_weights(tmp_path / 'gone.pth')


def test_an_existing_folder_is_left_alone(tmp_path):
  folder = tmp_path / 'mine'
  folder.mkdir()
  (folder / 'notes.txt').write_text('mine')
  with pytest.raises(FileExistsError, match=f'{folder} exists already'):
    save_weights(folder, _CFG, _params(_CFG))
  assert [p.name for p in tmp_path.rglob('*')] == ['mine', 'notes.txt']


def test_nothing_is_left_when_saving_fails(tmp_path):
  with pytest.raises((TypeError, ValueError)):
    save_weights(tmp_path / 'new', _CFG, {'kernel': object()})
  assert not list(tmp_path.iterdir())


def test_half_a_weights_folder(folder, tmp_path):
  half = shutil.copytree(folder, tmp_path / 'half')
  shutil.rmtree(half / 'params')
  with pytest.raises(FileNotFoundError, match=str(half / 'params')):
    load_weights(half)


def test_a_field_that_is_unknown_is_named(folder, tmp_path):
  other = shutil.copytree(folder, tmp_path / 'other')
  fields = json.loads((other / 'model.json').read_text())
  (other / 'model.json').write_text(json.dumps(fields | {'nonsense': 1}))
  with pytest.raises(ValueError, match='unknown fields .* mixdtp: nonsense'):
    load_weights(other)
