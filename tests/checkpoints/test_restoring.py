"""Checkpoints: saved, restored, damaged, of other networks and versions."""

import functools
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.experimental import multihost_utils

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.configs.default import get_config
from mixdtp_jax.models.config import EXECUTION
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.files import NewerFormatError
from mixdtp_jax.runtime.mesh import make_mesh, replicated


def _config(**changes):
  config = get_config()
  config.update_from_flattened_dict(changes)
  return config


def _init(config=None):
  """Returns a fresh state of two tensors, which is enough for checkpoints."""
  params = {'conv': {'kernel': jnp.zeros((3, 4)), 'bias': jnp.ones(4)}}
  opt_state = make_optimizer(make_recipe(config or _config())).init(params)
  return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def _state(step, devices=1, config=None):
  """Returns a state in which all numbers differ."""
  random = np.random.default_rng(step)
  state = jax.tree.map(
    lambda x: (100 * random.standard_normal(x.shape)).astype(x.dtype),
    _init(config),
  )
  state = TrainState(np.int32(step), state.params, state.opt_state)
  mesh = make_mesh(jax.devices()[:devices])
  return jax.device_put(state, replicated(mesh))


def _save(workdir, *steps, config=None, keep=0, devices=1):
  with saving.Manager(workdir, keep=keep) as manager:
    for step in steps:
      state = _state(step, devices, config)
      saving.save(manager, state, make_recipe(config or _config()))


def _restore(workdir, config=None, devices=1):
  sharding = replicated(make_mesh(jax.devices()[:devices]))
  with saving.Manager(workdir) as manager:
    return restoring.restore_or_init(
      manager,
      make_recipe(config or _config()),
      functools.partial(_init, config),
      sharding,
    )


@pytest.mark.parametrize('optimizer', ['adam', 'muon'])
@pytest.mark.parametrize(('before', 'after'), [(1, 1), (1, 8), (8, 1)])
def test_restores_what_was_saved(tmp_path, optimizer, before, after):
  config = _config(**{'optimizer.name': optimizer})
  _save(tmp_path, 12, config=config, devices=before)
  state = _restore(tmp_path, config=config, devices=after)
  saved = _state(12, config=config)
  assert jax.tree.structure(state) == jax.tree.structure(saved)
  jax.tree.map(np.testing.assert_array_equal, state, saved)
  assert state.step == 12
  for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(saved), strict=True):
    assert x.dtype == y.dtype
    assert len(x.sharding.device_set) == after


def test_starts_afresh_where_nothing_is(tmp_path):
  state = _restore(tmp_path, devices=8)
  jax.tree.map(np.testing.assert_array_equal, state, _init())
  assert len(state.step.sharding.device_set) == 8


def test_the_newest_is_restored_and_keep_says_how_many_stay(tmp_path):
  _save(tmp_path, 1, 2, 5, 9, keep=2)
  assert {p.name for p in (tmp_path / 'checkpoints').iterdir()} == {'5', '9'}
  state = _restore(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, state, _state(9))


def test_a_saved_step_stays_as_it_is(tmp_path):
  _save(tmp_path, 3)
  with saving.Manager(tmp_path) as manager:
    other = _state(4)
    again = TrainState(jnp.int32(3), other.params, other.opt_state)
    saving.save(manager, again, make_recipe(_config()))
  jax.tree.map(np.testing.assert_array_equal, _restore(tmp_path), _state(3))


def test_parameters_alone(tmp_path):
  _save(tmp_path, 4, devices=8)
  abstract = jax.eval_shape(_init).params
  with saving.Manager(tmp_path) as manager:
    params = restoring.restore_params(manager, 4, abstract)
  jax.tree.map(np.testing.assert_array_equal, params, _state(4).params)
  assert all(len(x.sharding.device_set) == 1 for x in jax.tree.leaves(params))


def test_the_configuration_comes_back(tmp_path):
  config = _config(**{'schedule.boundaries': (1, 2), 'data.source': 'a/b'})
  _save(tmp_path, 1, config=config)
  with saving.Manager(tmp_path) as manager:
    got = restoring.restore_config(manager, 1)
  # JSON has lists where Python has tuples.
  assert got == json.loads(json.dumps(config.to_dict()))


@pytest.mark.parametrize(
  ('changes', 'fields'),
  [
    (
      {'model.width': 32, 'model.heads': (1, 1, 1, 1)},
      ['model.width: saved 64, now 32', 'model.heads: saved [1, 2, 4, 8]'],
    ),
    ({'optimizer.name': 'adamw'}, ['optimizer.name: saved adam, now adamw']),
  ],
)
def test_another_network_is_refused(tmp_path, changes, fields):
  _save(tmp_path, 6)
  with pytest.raises(ValueError, match='checkpoint of update 6') as error:
    _restore(tmp_path, _config(**changes))
  for field in fields:
    assert field in str(error.value)
  assert str(tmp_path) in str(error.value)
  assert 'batch_size' not in str(error.value)


# A change of these is not reported.
_EXECUTION = {
  'model.scan_unroll': 2,
  'model.dtype': 'bfloat16',
  'model.remat': 'full',
  'model.fused_feed_forward': True,
}


def test_every_field_of_execution_is_tested():
  assert set(_EXECUTION) == {f'model.{name}' for name in EXECUTION}


def test_other_changes_are_told(tmp_path, caplog):
  _save(tmp_path, 6)
  config = _config(**{**_EXECUTION, 'batch_size': 16, 'schedule.factor': 0.5})
  with caplog.at_level(logging.WARNING, 'absl'):
    state = _restore(tmp_path, config)
  assert state.step == 6
  told = [r.getMessage() for r in caplog.records if 'Changed' in r.msg]
  assert told == [
    'Changed since update 6: batch_size: saved 4, now 16',
    'Changed since update 6: schedule.factor: saved 0.2, now 0.5',
  ]


def test_the_same_configuration_is_silent(tmp_path, caplog):
  config = _config(growth=((3, 128, 2), (6, 160, 1)))
  _save(tmp_path, 6, config=config)
  with caplog.at_level(logging.WARNING, 'absl'):
    _restore(tmp_path, ml_collections.ConfigDict(config))
  assert not [r for r in caplog.records if 'Changed' in r.msg]


def _averaged():
  state = _init()
  return state.replace(ema_params=jax.tree.map(jnp.copy, state.params))


@pytest.mark.parametrize('saved', [False, True])
@pytest.mark.parametrize('wanted', [False, True])
def test_the_average_comes_back_or_begins(tmp_path, saved, wanted):
  state = _state(5)
  if saved:
    state = state.replace(
      ema_params=jax.tree.map(lambda x: 2 * x, state.params)
    )
  with saving.Manager(tmp_path) as manager:
    config = _config(ema_decay=0.9 if saved else 0.0)
    saving.save(manager, state, make_recipe(config))
  with saving.Manager(tmp_path) as manager:
    init = _averaged if wanted else _init
    sharding = replicated(make_mesh())
    found = restoring.restore_or_init(
      manager, make_recipe(_config()), init, sharding
    )
    exported = restoring.restore_params(
      manager, 5, jax.eval_shape(_init).params
    )
  # A run without an average starts one from its weights.
  average = state.eval_params if wanted else None
  want = state.replace(ema_params=average)
  assert jax.tree.structure(found) == jax.tree.structure(want)
  jax.tree.map(np.testing.assert_array_equal, found, want)
  jax.tree.map(np.testing.assert_array_equal, exported, state.eval_params)
  # An update consumes both, so they may not share memory.
  assert (
    not wanted
    or found.ema_params['conv']['bias'] is not found.params['conv']['bias']
  )


def _largest(step_folder):
  """Returns the file with the parameters; such small ones are in the index."""
  files = (step_folder / 'params' / 'd').iterdir()
  return max(files, key=lambda p: p.stat().st_size)


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def _truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(folder):
  for path in folder.rglob('*'):
    if path.is_file():
      path.write_bytes(b'')


def _vanish(folder):
  shutil.rmtree(folder)
  folder.mkdir()


_DAMAGE = {
  'a flipped bit': lambda folder: _flip(_largest(folder)),
  'a truncated file': lambda folder: _truncate(_largest(folder)),
  'a lost file': lambda folder: _largest(folder).unlink(),
  'lost parameters': lambda folder: shutil.rmtree(folder / 'params'),
  'a lost configuration': lambda folder: shutil.rmtree(folder / 'config'),
  'lost moments': lambda folder: shutil.rmtree(folder / 'opt_state'),
  'empty files': _empty,
  'an empty folder': _vanish,
}


@pytest.mark.parametrize('damage', _DAMAGE.values(), ids=_DAMAGE)
def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(
  tmp_path, caplog, damage
):
  _save(tmp_path, 3, 6, 9)
  newest = tmp_path / 'checkpoints' / '9'
  damage(newest)
  jax.tree.map(np.testing.assert_array_equal, _restore(tmp_path), _state(6))
  told = [r.getMessage() for r in caplog.records if 'Damaged' in r.msg]
  assert len(told) == 1
  assert str(newest) in told[0]
  assert '\n' not in told[0]
  # Its step can be saved again.
  assert (tmp_path / 'damaged_checkpoints' / '9').is_dir()
  _save(tmp_path, 9)
  jax.tree.map(np.testing.assert_array_equal, _restore(tmp_path), _state(9))
  damage(newest)
  assert _restore(tmp_path).step == 6
  assert (tmp_path / 'damaged_checkpoints' / '9-2').is_dir()


def test_hosts_that_read_different_checkpoints_stop(tmp_path, monkeypatch):
  _save(tmp_path, 3, 6)
  monkeypatch.setattr(
    multihost_utils, 'process_allgather', lambda x: np.array([x, x + 1])
  )
  with pytest.raises(ValueError, match='/6 is not the same in process 1'):
    _restore(tmp_path)


def test_when_all_are_damaged_nothing_is_moved_or_started(tmp_path):
  _save(tmp_path, 3, 6)
  for step in ('3', '6'):
    _flip(_largest(tmp_path / 'checkpoints' / step))
  with pytest.raises(ValueError, match='none of the 2 checkpoints') as error:
    _restore(tmp_path)
  for step in ('3', '6'):
    assert str(tmp_path / 'checkpoints' / step) in str(error.value)
    assert (tmp_path / 'checkpoints' / step / 'params').is_dir()
  assert not (tmp_path / 'damaged_checkpoints').exists()


def test_another_network_is_not_taken_for_damage(tmp_path):
  _save(tmp_path, 3, 6)
  with pytest.raises(restoring.OtherNetworkError, match='of update 6'):
    _restore(tmp_path, _config(**{'model.width': 32}))
  assert not (tmp_path / 'damaged_checkpoints').exists()


def _save_as(workdir, step, **format_number):
  """Writes a checkpoint as version 0.1 did, or with a format number."""
  state, config = _state(step), _config().to_dict() | format_number
  del config['kernels']  # an option that came later
  items = ocp.args.Composite(
    params=ocp.args.StandardSave(state.params),
    opt_state=ocp.args.StandardSave(state.opt_state),
    config=ocp.args.JsonSave(config),
  )
  with ocp.CheckpointManager(workdir / 'checkpoints') as manager:
    manager.save(step, args=items)


def test_a_checkpoint_without_a_format_number_still_loads(tmp_path):
  _save_as(tmp_path, 3)
  jax.tree.map(np.testing.assert_array_equal, _restore(tmp_path), _state(3))


def test_a_checkpoint_of_a_newer_version_is_refused_not_set_aside(tmp_path):
  _save(tmp_path, 3)
  _save_as(tmp_path, 6, format=2)
  with pytest.raises(NewerFormatError, match='update mixdtp_jax') as error:
    _restore(tmp_path)
  assert str(tmp_path / 'checkpoints' / '6') in str(error.value)
  assert not (tmp_path / 'damaged_checkpoints').exists()


def test_readers_change_nothing(tmp_path):
  _save(tmp_path, 3, 6)
  folder = tmp_path / 'checkpoints'
  half_saved = folder / '9.orbax-checkpoint-tmp'
  half_saved.mkdir()
  _flip(_largest(folder / '6'))
  before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob('*'))
  abstract = jax.eval_shape(_init).params
  with saving.open_manager(tmp_path) as manager:
    params, damaged = restoring.newest_readable(
      manager,
      lambda step: restoring.restore_params(manager, step, abstract),
    )
  assert damaged == [6]
  jax.tree.map(np.testing.assert_array_equal, params, _state(3).params)
  after = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob('*'))
  assert before == after
  # The run itself clears up.
  _save(tmp_path, 9)
  assert not half_saved.exists()
