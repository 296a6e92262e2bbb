"""bench inference and bench training, as a user runs them and from within."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import pytest

from mixdtp_jax.cli import errors
from mixdtp_jax.tools.bench import case

pytestmark = pytest.mark.usefixtures('quick_compiler')

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'
_CONFIG = str(_TESTS / 'tiny_prenet.py')
_INFERENCE = {
  'config': str(_TESTS / 'tiny.py'), 'size': '20x12', 'batch': '1',
  'devices': 1, 'overrides': [], 'repeats': 2, 'opponents': 'none', 'out': None,
}  # fmt: skip
_TRAINING = {
  'config': _CONFIG, 'crop': 16, 'batch': '2', 'most': 2, 'devices': 1,
  'overrides': [], 'repeats': 2, 'opponents': 'none', 'out': None,
}  # fmt: skip


@pytest.fixture
def one_thread():
  """PyTorch computes with one, then as before."""
  import torch

  before = torch.get_num_threads()
  yield
  torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.torch
def test_without_a_compiler_the_other_variants_stay(environment, tmp_path):
  out = tmp_path / 'inference.json'
  result = subprocess.run(
    [
      sys.executable, '-m', 'mixdtp_jax', 'bench', 'inference',
      f'--config={_CONFIG}', '--size=24x16', '--repeats=2', f'--out={out}',
    ],
    env=environment
    | {
      'CXX': '/no/compiler',
      'PYTHONPATH': str(_TESTS.parents[1]),
      'TORCHINDUCTOR_CACHE_DIR': str(tmp_path / 'new'),
    },
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  found = json.loads(out.read_text())
  assert (found['width'], found['height'], found['batch']) == (24, 16, 1)
  cores = found['machine']['cores']
  assert found['torch']['threads'] == cores
  assert (
    f'{cores} threads; PyTorch {found["torch"]["version"]}' in result.stdout
  )
  assert len(found['jax']['alone']) == 2
  assert min(found['jax'][k] for k in ('lower', 'compile', 'first')) > 0
  for name in ('published', 'eager'):
    variant = found['opponents'][name]
    assert len(variant['timing']['jax']) == len(variant['timing']['torch'])
    low, high = variant['time_quartiles']
    assert 0 < low <= variant['time_ratio'] <= high
    assert f'{variant["time_ratio"]:.3f}' in result.stdout
    assert variant['memory']['source'] == found['jax']['memory']['source']
  failure = found['opponents']['compile']['failure']
  assert f'PyTorch compile: {failure}\n' in result.stdout
  assert 'no/compiler' in failure or 'compiler' in failure.lower()


@pytest.mark.slow
def test_other_sizes_are_filled_up(tmp_path, capsys):
  out = tmp_path / 'inference.json'
  case.run(
    'inference',
    **_INFERENCE | {'out': str(out), 'overrides': ['model.dtype=bfloat16']},
  )
  text = capsys.readouterr().out
  assert 'inference, 1 x 20x12 pixels; mixdtp, 205,373 parameters' in text
  assert 'PyTorch' not in text
  found = json.loads(out.read_text())
  assert found['opponents'] == {}
  assert found['config']['model']['dtype'] == 'bfloat16'


@pytest.mark.slow
@pytest.mark.torch
def test_an_update_beside_pytorch(one_thread, tmp_path, capsys):
  out = tmp_path / 'training.json'
  flags = {'opponents': 'published,eager', 'out': str(out)}
  case.run('training', **_TRAINING | flags)
  text = capsys.readouterr().out
  assert 'training, 2 x 16x16 pixels; prenet' in text
  found = json.loads(out.read_text())
  assert found['searches'] == {}
  assert found['jax']['batch'] == 2
  for name in ('published', 'eager'):
    assert found['opponents'][name]['time_ratio'] > 0


@pytest.mark.slow
def test_each_has_its_own_best_batch(
  one_thread, environment, monkeypatch, tmp_path, capsys
):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  out = tmp_path / 'training.json'
  flags = {'batch': 'best', 'opponents': 'eager', 'out': str(out)}
  case.run('training', **_TRAINING | flags)
  text = capsys.readouterr().out
  found = json.loads(out.read_text())
  made = {'jax': found['jax'], 'eager': found['opponents']['eager']}
  for name, result in made.items():
    search = found['searches'][name]
    assert set(search['rates']) == {'1', '2'}
    assert search['ended_by'] in ('limit', 'rate')
    best = max(search['rates'], key=search['rates'].get)
    assert result['batch'] == int(best)
    assert f'{name}: best batch {best}' in text


@pytest.mark.slow
def test_devices_share_a_batch(tmp_path):
  out = tmp_path / 'training.json'
  case.run('training', **_TRAINING | {'devices': 2, 'out': str(out)})
  assert json.loads(out.read_text())['devices'] == 2


@pytest.mark.parametrize(
  'change, message',
  [
    ({'size': '20'}, None),
    ({'size': '20x'}, '--size 20x: needs WIDTHxHEIGHT'),
    ({'size': '0x8'}, '--size 0x8: needs WIDTHxHEIGHT, each at least 1 pixel'),
    ({'batch': '0'}, '--batch 0: needs a number of at least 1'),
    ({'batch': 'many'}, '--batch many'),
    ({'devices': 9}, '--devices 9: there are 8'),
    ({'devices': 2}, '--batch 1: 2 devices do not divide it'),
    ({'opponents': 'eager,best'}, "--opponents 'best': choose from published"),
    ({'devices': 2, 'batch': '2', 'opponents': 'eager'}, '--opponents none'),
  ],
)
def test_settings_of_inference_that_do_not_fit(change, message):
  if message is None:
    assert case.parse_size(change['size']) == (20, 20)
    return
  with pytest.raises(ValueError, match=message):
    case.run('inference', **_INFERENCE | change)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'config': str(_TESTS / 'tiny.py'), 'crop': 20}, '--crop 20: the network'),
    ({'batch': 'good'}, '--batch good'),
    ({'batch': 'best', 'devices': 2}, '--devices 2: needs a --batch of a num'),
    ({'batch': 'best', 'most': 0}, '--most 0: needs at least 1'),
  ],
)
def test_settings_of_training_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    case.run('training', **_TRAINING | change)


def test_without_pytorch_the_remedy_is_told(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(ImportError, match=r"\[torch\]', or take --oppone"):
    case.run('inference', **_INFERENCE | {'opponents': 'eager'})


@pytest.mark.parametrize(
  'message',
  [
    'CUDA out of memory. Tried to allocate 2.00 GiB',
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
  ],
)
def test_what_pytorch_says_of_memory_is_a_memory_error(message):
  with pytest.raises(MemoryError, match=message[:20]):
    raise case._as_sent(RuntimeError(f'{message}\nand more'))


def test_a_process_that_crashes_is_no_lack_of_memory():
  with pytest.raises(ChildProcessError, match='exit status 9'):
    case.apart(os._exit, 9)


@pytest.mark.slow
def test_a_process_that_fails_says_why(capfd):
  with pytest.raises(ValueError, match="invalid literal .*'gone'"):
    case.apart(int, 'gone')
  with pytest.raises(FileNotFoundError) as missing:
    case.apart(os.stat, 'gone')
  assert missing.value.filename == 'gone'
  with pytest.raises(MemoryError, match='is the memory full'):
    case.apart(signal.raise_signal, signal.SIGKILL)
  assert capfd.readouterr() == ('', '')


def test_a_bug_keeps_its_type_and_is_not_the_users():
  for bug in (KeyError('lost'), ZeroDivisionError('lost')):
    sent = case._as_sent(bug)
    assert str(sent).startswith(f'{type(bug).__name__}: ')
    with pytest.raises(Exception, match='lost') as raised:
      raise sent
    assert errors.explain(raised.value, 'bench') is None


def test_an_error_that_cannot_leave_its_process_keeps_its_text():
  class OfALibrary(RuntimeError):
    pass

  sent = case._as_sent(OfALibrary('no compiler'))
  assert (type(sent), str(sent)) == (RuntimeError, 'no compiler')
  assert str(case._as_sent(OfALibrary())) == 'OfALibrary'


@pytest.mark.slow
def test_a_process_has_the_number_of_devices_asked_for():
  assert case.apart(jax.device_count, cpus=3) == 3
