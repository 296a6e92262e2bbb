"""Weights to and from PyTorch, over the published names."""

import dataclasses
import logging
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from mixdtp_jax.cli import main
from mixdtp_jax.models.config import MixDTPConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights import pth
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.names import infer_config
from mixdtp_jax.weights.state_dict import from_torch, to_torch
from tests.campaigns import weight_files
from tests.helpers import golden_values

pytestmark = pytest.mark.torch

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

SMALL = MixDTPConfig(
  width=8,
  encoder_blocks=(1, 2, 1, 1),
  decoder_blocks=(1, 1, 2),
  refinement_blocks=1,
  heads=(1, 1, 2, 4),
  recurrent_width=4,
)


def random_params(cfg):
  generator = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: generator.random(leaf.shape, np.float32), abstract_params(cfg)
  )


def assert_equal_trees(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_names_and_shapes_are_the_published_ones():
  state_dict = to_torch(
    from_torch(golden_values.state_dict(), MixDTPConfig()), MixDTPConfig()
  )
  assert len(state_dict) == 550
  shapes = {name: list(array.shape) for name, array in state_dict.items()}
  assert shapes == golden_values.SHAPES


def test_there_and_back_changes_no_bit():
  original = golden_values.state_dict()
  back = to_torch(from_torch(original, MixDTPConfig()), MixDTPConfig())
  for name, array in original.items():
    np.testing.assert_array_equal(back[name], array, err_msg=name)


@pytest.mark.parametrize(
  'change',
  [
    {},
    {'detail_dilation': False},
    {'steps': 0},
    {'ffn_expansion': 2.0},
    {'width': 10, 'ffn_expansion': 2.37, 'heads': (1, 2, 2, 2)},
  ],
)
def test_every_kind_of_network_goes_there_and_back(change):
  cfg = dataclasses.replace(SMALL, **change)
  params = random_params(cfg)
  state_dict = to_torch(params, cfg)
  assert_equal_trees(from_torch(state_dict, cfg), params)
  inferred = infer_config(state_dict)
  assert_equal_trees(from_torch(state_dict, inferred), params)
  hidden = [
    [int(c.level_width(i) * c.ffn_expansion) for i in range(4)]
    for c in (inferred, cfg)
  ]
  assert hidden[0] == hidden[1]
  # Any factor that gives the hidden channels is right; all else is equal,
  # but the width of a refinement that is not there.
  same = dataclasses.replace(
    inferred,
    ffn_expansion=cfg.ffn_expansion,
    recurrent_width=cfg.recurrent_width,
  )
  assert same == cfg
  if cfg.steps:
    assert inferred.recurrent_width == cfg.recurrent_width


def test_the_default_network_is_inferred_from_its_weights():
  assert infer_config(golden_values.state_dict()) == MixDTPConfig()


def _saved(path, content):
  torch.save(content, path)
  return path


@pytest.mark.parametrize(
  ('under', 'prefix'),
  [
    ((), ''),
    ((), 'module.'),
    (('params',), ''),
    (('params',), 'module._orig_mod.'),
    (('model',), '_orig_mod.'),
    (('net', 'params'), 'net.'),
    (('state_dict',), 'model.'),
  ],
)
def test_the_usual_wrappings_are_taken_off(tmp_path, caplog, under, prefix):
  state_dict = to_torch(random_params(SMALL), SMALL)
  content = {prefix + k: torch.from_numpy(v) for k, v in state_dict.items()}
  if prefix == 'model.':  # Lightning's has the loss's network beside it
    content['loss.vgg.weight'] = torch.zeros(1)
  for key in reversed(under):
    content = {key: content, 'epoch': 3}
  path = _saved(tmp_path / 'weights.pth', content)
  with caplog.at_level(logging.INFO, 'absl'):
    cfg, params = load_weights(path)
  assert_equal_trees(params, from_torch(state_dict, cfg))
  told = [r.getMessage() for r in caplog.records if 'took' in r.msg]
  assert len(told) == bool(under) + bool(prefix)
  assert all(line.startswith(f'{path}: took ') for line in told)
  if prefix:
    assert told[-1].endswith(f'those under {prefix[:-1]}')


def test_averaged_weights_come_before_others(tmp_path, caplog):
  state_dict = to_torch(random_params(SMALL), SMALL)
  average = {k: torch.from_numpy(v) for k, v in state_dict.items()}
  last = {k: 2 * v for k, v in average.items()}
  path = tmp_path / 'weights.pth'
  _saved(path, {'params': last, 'params_ema': average})
  with caplog.at_level(logging.INFO, 'absl'):
    read = pth.read_pth(path)
  assert f'{path}: took the weights under params_ema' in caplog.text
  for name, array in state_dict.items():
    np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_damaged_files_are_one_line_with_their_name(suffix):
  weight_files.watch()
  outcomes = [outcome for outcome, _ in weight_files.campaign(suffix, 200)]
  assert set(outcomes) == {'loaded', 'refused'}, outcomes


def test_a_missing_or_unknown_name_is_refused():
  state_dict = to_torch(random_params(SMALL), SMALL)
  weight = state_dict.pop('conv_final.weight')
  with pytest.raises(ValueError, match=r'1 missing \(conv_final.weight\)'):
    from_torch(state_dict, SMALL)
  state_dict |= {'conv_final.weight': weight, 'extra.weight': weight}
  with pytest.raises(ValueError, match=r'1 unknown \(extra.weight\)'):
    from_torch(state_dict, SMALL)


def test_a_wrong_shape_is_refused_with_both_shapes():
  state_dict = to_torch(random_params(SMALL), SMALL)
  state_dict['conv_final.weight'] = np.zeros((3, 9, 3, 3), np.float32)
  message = r'conv_final.weight .*\(3, 9, 3, 3\).*\(3, 8, 3, 3\)'
  with pytest.raises(ValueError, match=message):
    from_torch(state_dict, SMALL)


def test_params_of_another_network_are_refused():
  params = random_params(SMALL)
  wider = dataclasses.replace(SMALL, width=16)
  with pytest.raises(ValueError, match='has shape'):
    to_torch(params, wider)
  with pytest.raises(ValueError, match='unknown'):
    to_torch(params, dataclasses.replace(SMALL, steps=0))


def test_other_weights_are_refused():
  with pytest.raises(ValueError, match='they have neither'):
    infer_config({'layer.weight': np.zeros((1, 1))})


def test_pytorch_reads_and_writes_the_same_file(tmp_path):
  state_dict = to_torch(random_params(SMALL), SMALL)
  path = tmp_path / 'weights.pth'
  pth.write_pth(state_dict, path)
  loaded = torch.load(path, weights_only=True)
  assert list(loaded) == list(state_dict)
  for name, tensor in loaded.items():
    np.testing.assert_array_equal(tensor.numpy(), state_dict[name])
  back = pth.read_pth(path)
  for name, array in back.items():
    np.testing.assert_array_equal(array, state_dict[name])
  assert [p.name for p in tmp_path.iterdir()] == ['weights.pth']


class _Hostile:
  def __init__(self, command):
    self._command = command

  def __reduce__(self):
    return os.system, (self._command,)


def test_a_hostile_file_is_not_executed(tmp_path):
  proof = tmp_path / 'executed'
  hostile = {'conv_final.weight': _Hostile(f'touch {proof}')}
  saved, pickled = tmp_path / 'saved.pth', tmp_path / 'pickled.pth'
  torch.save(hostile, saved)
  pickled.write_bytes(pickle.dumps(hostile))
  for path in (saved, pickled):
    with pytest.raises(ValueError, match='was not loaded'):
      pth.read_pth(path)
  assert not proof.exists()


def test_a_damaged_file_is_refused(tmp_path):
  path = tmp_path / 'weights.pth'
  pth.write_pth(to_torch(random_params(SMALL), SMALL), path)
  whole = path.read_bytes()
  for damaged in (whole[: len(whole) // 2], b'', b'no weights at all'):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='damaged'):
      pth.read_pth(path)


def test_anything_but_named_tensors_is_refused(tmp_path):
  path = tmp_path / 'weights.pth'
  for content in ([torch.zeros(1)], {'epoch': 3}, {3: torch.zeros(1)}):
    torch.save(content, path)
    with pytest.raises(ValueError, match='no state dict'):
      pth.read_pth(path)
  with pytest.raises(FileNotFoundError, match='missing.pth'):
    pth.read_pth(tmp_path / 'missing.pth')


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'mixdtp_jax', *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_the_convert_command_there_and_back(tmp_path):
  state_dict = to_torch(random_params(SMALL), SMALL)
  original, folder = tmp_path / 'original.pth', tmp_path / 'deep' / 'weights'
  pth.write_pth(
    {f'module.{name}': value for name, value in state_dict.items()}, original
  )
  there = run('convert', original, '--to', folder, '--steps', 2)
  assert there.returncode == 0, there.stderr
  assert 'steps=2' in there.stdout
  back = run('convert', folder, '--to', tmp_path / 'back.pth')
  assert back.returncode == 0, back.stderr
  for name, array in pth.read_pth(tmp_path / 'back.pth').items():
    np.testing.assert_array_equal(array, state_dict[name])
  again = run('convert', original, '--to', folder)
  assert again.returncode == 1
  assert again.stderr.startswith('error: ')
  assert 'exists already' in again.stderr


def test_without_pytorch_the_error_asks_for_it(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'torch', None)
  path = tmp_path / 'weights.pth'
  path.write_bytes(b'')
  words = ['convert', str(path), '--to', str(tmp_path / 'w')]
  assert main.run_command(words) == 1
  assert 'pip install' in capsys.readouterr().err
