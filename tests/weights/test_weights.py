"""Loading weights from runs, folders and .pth files, and the shipped ones."""

import dataclasses
import functools
import json
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mixdtp_jax.checkpoints import saving, verifying
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.weights import shipped
from mixdtp_jax.weights.convert import convert
from mixdtp_jax.weights.folder import save_weights
from mixdtp_jax.weights.load import load_params, load_weights
from mixdtp_jax.weights.pth import write_pth
from mixdtp_jax.weights.run import load_run_config
from mixdtp_jax.weights.safetensors_file import write_safetensors
from mixdtp_jax.weights.state_dict import to_torch
from tests.campaigns import checkpoints
from tests.helpers import tiny

_CFG = dataclasses.replace(make_model_config(tiny.get_config().model), steps=2)


@functools.cache
def _params(cfg):
  """Returns parameters in which all numbers differ."""
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
  with saving.Manager(workdir) as manager:
    saving.save(manager, state, make_recipe(config))
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


def test_a_workdir(tmp_path, monkeypatch):
  config = _save_run(tmp_path)
  _assert_loads(tmp_path, _CFG)
  loaded = load_run_config(tmp_path)
  assert loaded['seed'] == config.seed
  boundaries = loaded['schedule']['boundaries']
  assert tuple(boundaries) == config.schedule.boundaries
  monkeypatch.setenv('HOME', str(tmp_path.parent))
  assert load_run_config(f'~/{tmp_path.name}') == loaded


@pytest.mark.torch
def test_a_pth(tmp_path):
  write_pth(to_torch(_params(_CFG), _CFG), tmp_path / 'weights.pth')
  # Its shapes do not tell the steps: 3 is what was published.
  published = dataclasses.replace(_CFG, steps=3)
  _assert_loads(tmp_path / 'weights.pth', published)
  _assert_loads(tmp_path / 'weights.pth', _CFG, steps=2)


def test_steps_can_be_changed(folder):
  _assert_loads(folder, dataclasses.replace(_CFG, steps=5), steps=5)


def test_without_steps_the_refinement_is_left_out(folder, tmp_path):
  convert(folder, tmp_path / 'coarse', steps=0)
  cfg, params = load_weights(tmp_path / 'coarse')
  assert cfg.steps == 0
  assert 'progressive' not in params
  np.testing.assert_array_equal(
    params['mhs']['to_image']['kernel'],
    _params(_CFG)['mhs']['to_image']['kernel'],
  )


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
    ({'coupling': False}, 'model.coupling: there True, here False'),
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
    with pytest.raises(FileNotFoundError, match=f'{folder}: no weights') as e:
      load(folder)
    for remedy in ('mixdtp train', 'mixdtp convert', *shipped.names()):
      assert remedy in str(e.value)
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


def test_a_description_that_is_read_back_wrong_is_not_kept(
  tmp_path, monkeypatch
):
  real = verifying.write_digests

  def faulty(folder, arrays, facts):
    real(folder, arrays, facts)
    path = folder / 'model.json'
    path.write_text(path.read_text().replace('"steps": ', '"steps": 1'))
    # A kill would leave what the next save there removes; see `replacing`.
    assert folder.parent.name.startswith('.writing-')

  monkeypatch.setattr(verifying, 'write_digests', faulty)
  with pytest.raises(ValueError, match='is not what was saved'):
    save_weights(tmp_path / 'new', _CFG, _params(_CFG))
  assert not list(tmp_path.iterdir())


def test_what_is_not_finite_or_cannot_lie_there_is_not_saved(tmp_path):
  infinite = jax.tree.map(lambda x: x + np.inf, _params(_CFG))
  with pytest.raises(ValueError, match='is not finite: nothing was written'):
    save_weights(tmp_path / 'new', _CFG, infinite)
  with pytest.raises(ValueError, match='arrays cannot be saved in a folder'):
    save_weights(tmp_path / 'a[1]', _CFG, _params(_CFG))
  assert not list(tmp_path.iterdir())


def test_a_folder_without_digests_is_read_with_a_line(folder, tmp_path, caplog):
  old = shutil.copytree(folder, tmp_path / 'old')
  (old / 'digests.json').unlink()
  with caplog.at_level(logging.INFO, 'absl'):
    _assert_loads(old, _CFG)
  assert f'{old} was saved without digests: not verified' in caplog.text


def test_a_damaged_weights_folder_is_refused(tmp_path):
  outcomes = [what for what, _ in checkpoints.damage_weights(tmp_path, 12, 6)]
  assert set(outcomes) == {'as saved', 'refused'}


def test_only_a_run_has_other_checkpoints(folder):
  with pytest.raises(ValueError, match='is no training run'):
    load_weights(folder, update=3)


def test_half_a_weights_folder(folder, tmp_path):
  half = shutil.copytree(folder, tmp_path / 'half')
  shutil.rmtree(half / 'params')
  with pytest.raises(FileNotFoundError, match=str(half / 'params')):
    load_weights(half)


@pytest.mark.parametrize('text', ['', '[]', '7', '[' * 100_000, '{"format": '])
def test_a_damaged_description_is_named(folder, tmp_path, text):
  other = shutil.copytree(folder, tmp_path / 'other')
  (other / 'model.json').write_text(text)
  with pytest.raises(ValueError, match=str(other / 'model.json')):
    load_weights(other)


def _with_format(folder, target, number):
  """Makes a copy with another format number."""
  copy = shutil.copytree(folder, target)
  fields = json.loads((copy / 'model.json').read_text())
  assert fields.pop('format') == 1
  fields['format'] = number
  (copy / 'model.json').write_text(json.dumps(fields))
  return copy


def test_a_folder_without_a_format_number_still_loads(tmp_path):
  old = tmp_path / 'old'
  old.mkdir()
  fields = {
    'name': 'mixdtp',
    'width': 8,
    'encoder_blocks': [1, 1, 1, 1],
    'decoder_blocks': [1, 1, 1],
    'refinement_blocks': 1,
    'heads': [1, 1, 2, 2],
    'ffn_expansion': 2.66,
    'recurrent_width': 4,
    'steps': 2,
    'detail_dilation': True,
    'coupling': True,
    # Fields of execution that version 0.1 had at first; others came later.
    'scan_unroll': 1,
    'dtype': 'float32',
  }
  (old / 'model.json').write_text(json.dumps(fields, indent=2))
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(old / 'params', _params(_CFG))
  _assert_loads(old, _CFG)


def test_a_folder_of_a_newer_version_is_refused(folder, tmp_path):
  newer = _with_format(folder, tmp_path / 'newer', 2)
  with pytest.raises(ValueError, match='newer version .*update mixdtp_jax'):
    load_weights(newer)
  odd = _with_format(folder, tmp_path / 'odd', 'two')
  with pytest.raises(ValueError, match="format 'two' is not a format number"):
    load_weights(odd)


def test_a_field_that_is_unknown_is_named(folder, tmp_path):
  other = shutil.copytree(folder, tmp_path / 'other')
  fields = json.loads((other / 'model.json').read_text())
  (other / 'model.json').write_text(json.dumps(fields | {'nonsense': 1}))
  with pytest.raises(ValueError, match='is not what was saved'):
    load_weights(other)
  (other / 'digests.json').unlink()
  with pytest.raises(ValueError, match='unknown option model.nonsense'):
    load_weights(other)


@pytest.fixture
def shipped_small(tmp_path, monkeypatch):
  """A package that ships the weights `small`; the current folder is empty."""
  monkeypatch.setattr(shipped, 'FOLDER', tmp_path / 'package')
  path = tmp_path / 'package' / 'small.safetensors'
  write_safetensors(path, _CFG, _params(_CFG), notes={'licence': 'free'})
  here = tmp_path / 'here'
  here.mkdir()
  monkeypatch.chdir(here)
  return path


def test_shipped_weights_load_by_name_from_anywhere(shipped_small):
  assert shipped.names() == ['small']
  _assert_loads('small', _CFG)
  _assert_loads('small', dataclasses.replace(_CFG, steps=4), steps=4)
  load_params('small', _CFG)
  said = convert('small', 'copy.safetensors', dtype='float16')
  assert said.startswith('small -> copy.safetensors: ')


def test_a_name_means_the_shipped_weights_and_a_path_the_path(shipped_small):
  other = dataclasses.replace(_CFG, steps=7)
  save_weights('small', other, _params(_CFG))
  _assert_loads('small', _CFG)
  _assert_loads('./small', other)
  _assert_loads(pathlib.Path('small'), other)
  _assert_loads(pathlib.Path.cwd() / 'small', other)
  save_weights('mine', other, _params(_CFG))
  _assert_loads('mine', other)


def test_an_unknown_name_says_which_there_are(shipped_small):
  for name in ('large', './small', 'small.safetensors'):
    with pytest.raises(FileNotFoundError, match=r'shipped weights \(small\)'):
      load_weights(name)
  shipped_small.unlink()
  with pytest.raises(FileNotFoundError, match='none in this version'):
    load_weights('small')


@pytest.mark.parametrize('name', shipped.names())
def test_shipped_weights_load_and_are_small(name):
  cfg, params = load_weights(name)
  jax.tree.map(lambda x, y: x.reshape(y.shape), params, abstract_params(cfg))
  assert shipped.locate(name).stat().st_size <= 4_000_000


@pytest.mark.parametrize(
  'ending',
  [
    '.safetensors',
    pytest.param('.pth', marks=pytest.mark.torch),
    pytest.param('.pt', marks=pytest.mark.torch),
    '',
  ],
)
def test_every_form_converts_to_every_form(folder, tmp_path, ending):
  target = tmp_path / f'a{ending}'
  assert f'parameters of {_CFG.name}' in convert(folder, target)
  assert target.is_file() == bool(ending)
  back = tmp_path / 'back'
  convert(target, back, steps=2)
  _assert_loads(back, _CFG)


def test_a_target_that_exists_or_cannot_be_is_refused_first(tmp_path):
  (tmp_path / 'a.pth').write_text('mine')
  (tmp_path / 'b.pth').symlink_to('nowhere')
  for name in ('a.pth', 'b.pth'):
    with pytest.raises(FileExistsError, match=f'{name} exists already'):
      convert('no weights', tmp_path / name)
  with pytest.raises(ValueError, match='only .safetensors files can be'):
    convert('no weights', tmp_path / 'c', dtype='float16')
