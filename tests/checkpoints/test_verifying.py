"""Digests: no array is ever restored with other values than were saved."""

import logging
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.checkpoints import restoring, saving, verifying
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from tests.campaigns import checkpoints as campaign

_RECIPE = Recipe()


def _state(update, value=1.0):
  params = {'conv': {'kernel': jnp.full((3, 4), value), 'bias': jnp.ones(4)}}
  moments = make_optimizer(_RECIPE).init(params)
  return TrainState(jnp.int32(update), params, moments)


def _save(workdir, *updates, keep=0):
  with saving.Manager(workdir, keep=keep) as manager:
    for update in updates:
      saving.save(manager, _state(update), _RECIPE)


def _restore(workdir):
  with saving.Manager(workdir) as manager:
    sharding = replicated(make_mesh(jax.devices()[:1]))
    return restoring.restore_or_init(
      manager, _RECIPE, lambda: _state(0), sharding
    )


def _names(workdir):
  return {path.name for path in (workdir / 'checkpoints').iterdir()}


def test_damage_never_gives_other_values(tmp_path):
  found = [what for what, _ in campaign.damage_checkpoints(tmp_path, 12, 6)]
  assert set(found) <= {'as saved', 'the one before'}
  assert 'the one before' in found


@pytest.mark.slow
def test_more_damage_never_gives_other_values(tmp_path):
  for damage in (campaign.damage_checkpoints, campaign.damage_weights):
    found = [what for what, _ in damage(tmp_path / damage.__name__, 80, 20)]
    assert 'WRONG' not in found


def test_a_folder_that_holds_another_update_is_damaged(tmp_path):
  _save(tmp_path, 3, 6)
  folder = tmp_path / 'checkpoints'
  (folder / '6').rename(folder / '9')
  assert _restore(tmp_path).step == 3
  assert (tmp_path / 'damaged_checkpoints' / '9').is_dir()


def test_without_digests_a_line_says_that_nothing_was_verified(
  tmp_path, caplog
):
  _save(tmp_path, 3)
  path = tmp_path / 'checkpoints' / '3'
  (path / verifying.FILE).unlink()
  with caplog.at_level(logging.INFO, 'absl'):
    assert _restore(tmp_path).step == 3
  told = [r.getMessage() for r in caplog.records if 'not verified' in r.msg]
  assert told == [f'{path} was saved without digests: not verified']


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, value):
  with saving.Manager(tmp_path) as manager:
    saving.save(manager, _state(3), _RECIPE)
    saving.save(manager, _state(6, value), _RECIPE)
    with pytest.raises(
      FloatingPointError, match='update 6: params/conv/kernel is not finite'
    ) as error:
      saving.wait(manager)
  assert f'last good checkpoint is {tmp_path}/checkpoints/3' in str(error.value)
  assert _names(tmp_path) == {'3'}


@pytest.mark.parametrize('item', ['params/d', 'config'])
def test_what_is_read_back_wrong_is_no_checkpoint(tmp_path, monkeypatch, item):
  """As on a faulty disk, and the older one is still there."""
  _save(tmp_path, 3, keep=1)
  real = verifying.write_digests

  def faulty(folder, arrays, facts):
    real(folder, arrays, facts)
    found = [p for p in pathlib.Path(folder, item).iterdir() if p.is_file()]
    path = max(found, key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

  monkeypatch.setattr(verifying, 'write_digests', faulty)
  with (
    pytest.raises(OSError, match='of update 6 could not be saved') as error,
    saving.Manager(tmp_path, keep=1) as manager,
  ):
    saving.save(manager, _state(6), _RECIPE)
    saving.wait(manager)
  assert f'last good checkpoint is {tmp_path}/checkpoints/3' in str(error.value)
  assert _names(tmp_path) == {'3'}


def test_the_best_is_kept_beside_the_newest(tmp_path):
  with saving.Manager(tmp_path, keep=1) as manager:
    manager.best = {'update': 3}
    for update in (3, 6, 9):
      saving.save(manager, _state(update), _RECIPE)
  assert _names(tmp_path) == {'3', '9'}


def _record(update):
  return {'update': update, 'split': 'val', 'images': 1, 'y_psnr': 1.0}


def test_the_best_changes_when_its_save_is_complete(tmp_path, monkeypatch):
  """So that a kill loses neither the old one nor the record."""
  begun, go_on, real = (
    threading.Event(),
    threading.Event(),
    saving.check_readable,
  )

  def slow(*args):
    begun.set()
    assert go_on.wait(60)
    real(*args)

  with saving.Manager(tmp_path, keep=1) as manager:
    saving.save(manager, _state(3), _RECIPE)
    manager.candidate = _record(3)
    saving.wait(manager)
    monkeypatch.setattr(saving, 'check_readable', slow)
    saving.save(manager, _state(6), _RECIPE)
    manager.candidate = _record(6)
    assert begun.wait(60)
    saving.settle(manager)
    assert saving.read_best(tmp_path) == _record(3)
    assert '3' in _names(tmp_path)
    go_on.set()
    while saving.read_best(tmp_path) != _record(6):
      saving.settle(manager)
    assert _names(tmp_path) == {'3', '6'}
    saving.save(manager, _state(9), _RECIPE)
  assert _names(tmp_path) == {'6', '9'}


def test_a_better_one_that_cannot_be_saved_leaves_the_best(tmp_path):
  with saving.Manager(tmp_path, keep=1) as manager:
    saving.save(manager, _state(3), _RECIPE)
    manager.candidate = _record(3)
    saving.save(manager, _state(6, np.nan), _RECIPE)
    manager.candidate = _record(6)
    with pytest.raises(FloatingPointError):
      saving.wait(manager)
  assert saving.read_best(tmp_path) == _record(3)
  assert _names(tmp_path) == {'3'}


@pytest.mark.parametrize('update', ['1e999', '-1e999', '"x"', 'null'])
def test_a_damaged_record_of_the_best_is_named(tmp_path, update):
  fields = f'"update": {update}, "split": "val", "images": 1, "y_psnr": 1'
  (tmp_path / saving.BEST).write_text(f'{{{fields}}}')
  with pytest.raises(ValueError, match=r'best\.json is damaged'):
    saving.read_best(tmp_path)


def test_to_keep_0_checkpoints_is_to_keep_all(tmp_path):
  _save(tmp_path, 1, 2, 3, 4, keep=0)
  assert _names(tmp_path) == {'1', '2', '3', '4'}


@pytest.mark.parametrize('name', ['[lr=1e-4]', 'a*', 'b?', 'c\\d', 'e\udcff'])
def test_a_path_that_orbax_cannot_save_under_is_refused(tmp_path, name):
  with pytest.raises(ValueError, match='arrays cannot be saved in a folder'):
    saving.Manager(tmp_path / name)
  assert not list(tmp_path.iterdir())


def test_other_odd_paths_work(tmp_path):
  workdir = tmp_path / 'ü {a,b} %20#!;:~"\' x=1'
  _save(workdir, 3)
  assert _restore(workdir).step == 3
