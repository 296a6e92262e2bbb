"""bench device: without TensorFlow, with commands that fail or are too slow."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from mixdtp_jax.cli.main import run_command
from mixdtp_jax.tools.bench import device

REPOSITORY = pathlib.Path(__file__).parents[2]
_WITHOUT = """
import sys
from importlib.machinery import PathFinder

absent = 'array_record', 'clu', 'tensorboard', 'tensorflow'

class Finder(PathFinder):
  @classmethod
  def find_spec(cls, name, *rest):
    return None if name.startswith(absent) else super().find_spec(name, *rest)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
_IMPORTS = """
import importlib, sys, pytest
assert pytest.main(['-q', '--collect-only', *sys.argv[1:]]) == 0
for name in ('bench.beside_torch', 'bench.profile', 'compare.command'):
  importlib.import_module(f'mixdtp_jax.tools.{name}')
assert 'tensorflow' not in sys.modules
"""


@pytest.fixture(scope='module')
def without_tensorflow(tmp_path_factory):
  """The environment of processes that find neither TensorFlow nor clu."""
  folder = tmp_path_factory.mktemp('without')
  (folder / 'sitecustomize.py').write_text(_WITHOUT)
  paths = f'{folder}{os.pathsep}{REPOSITORY}'
  return os.environ | {'PYTHONPATH': paths, 'XLA_FLAGS': ''}


def _run(*words, env):
  return subprocess.run(
    [sys.executable, *words],
    env=env,
    cwd=REPOSITORY,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def test_its_tests_and_commands_need_no_tensorflow(without_tensorflow):
  done = _run('-c', _IMPORTS, *device._TESTS, env=without_tensorflow)
  assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_variable_chooses_the_platform_of_tests(without_tensorflow):
  environment = without_tensorflow | {'MIXDTP_TEST_PLATFORM': 'nowhere'}
  words = ['-m', 'pytest', '-q', '-ra', '-k', 'large_values or narrow_images']
  files = 'tests/ops/test_native.py', 'tests/ops/test_dense.py'
  done = _run(*words, *files, env=environment)
  assert 'native code is for a CPU, not for nowhere' in done.stdout
  assert "Unable to initialize backend 'nowhere'" in done.stdout


@pytest.mark.slow
@pytest.mark.torch
def test_all_commands_run_without_tensorflow(without_tensorflow, tmp_path):
  out = tmp_path / 'device.json'
  words = ['-m', 'mixdtp_jax', 'bench', 'device', '--platform=cpu', '--quick']
  recipe = '--config=tests/helpers/tiny_prenet.py'
  done = _run(*words, recipe, f'--out={out}', env=without_tensorflow)
  assert done.returncode == 0, done.stdout
  found = json.loads(out.read_text())
  failed = [r for r in found['results'] if r['ended'] != 'exit status 0']
  assert not failed
  for pair in ('seconds', 'GiB beyond state and batch'):
    assert all(number > 0 for number in found['update'][pair])
  page = out.with_suffix('.html').read_text()
  assert 'GiB beyond state and batch' in page


@pytest.mark.slow
def test_without_time_all_commands_are_out_of_time(tmp_path, capfd):
  out = tmp_path / 'device.json'
  status = run_command(
    ['bench', 'device', '--platform=cpu', '--quick', '--config=demo']
    + ['--minutes=0', f'--out={out}']
  )
  assert not status
  results = json.loads(out.read_text())['results']
  names = [result['name'] for result in results]
  assert names[:4] == ['tests', 'compare', 'training', 'plan']
  assert {result['ended'] for result in results} == {'out of time'}
  page = out.with_suffix('.html').read_text()
  assert all(f'<h2>{name}</h2>' in page for name in names)
  assert 'out of time' in capfd.readouterr().out


@pytest.mark.slow
def test_a_command_that_fails_says_why(tmp_path):
  found = device._result(
    'plan', ['plan', '--config=nothing'], 'cpu', 120, str(tmp_path)
  )
  assert found['ended'] == 'exit status 1'
  assert 'nothing' in found['output'][-1]
  assert found['found'] is None
