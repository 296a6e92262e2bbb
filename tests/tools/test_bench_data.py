"""python -m mixdtp_jax bench data as a user runs it."""

import json
import pathlib
import subprocess
import sys

import pytest

from mixdtp_jax.data.datasets import registry
from mixdtp_jax.tools.bench import data
from tests.helpers import tiny

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'


def _bench(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'mixdtp_jax', 'bench', *arguments],
    cwd=_TESTS.parent,
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_bench_data(tiny_pairs, tmp_path):
  out = tmp_path / 'new' / 'data.json'
  result = _bench(
    'data',
    f'--config={_TESTS / "tiny.py"}',
    f'--config.data.source={tiny_pairs}',
    '--seconds=0.2',
    f'--out={out}',
  )
  assert result.returncode == 0, result.stderr
  found = json.loads(out.read_text())
  config = tiny.get_config()
  assert found['training_images'] == 4
  assert found['config']['data']['source'] == str(tiny_pairs)
  assert found['config']['data']['crop'] == config.data.crop
  assert found['machine']['cores'] > 0
  limits = [rate['cache_mb'] for rate in found['crops_per_second']]
  assert limits == [config.data.cache_mb, 0]
  for rate in found['crops_per_second']:
    assert rate['first_epoch'] > 0
    assert len(rate['windows']) == 5
    low, high = rate['quartiles']
    assert 0 < low <= rate['median'] <= high
    assert f'{rate["median"]:.0f}' in result.stdout
  assert 'crops of 16 pixels in batches of 8' in result.stdout


def test_bench_data_reads_a_prepared_copy(tiny_pairs, tmp_path, capsys):
  data_dir = str(tmp_path / 'data')
  registry.prepare('pairs', source=str(tiny_pairs), data_dir=data_dir)
  capsys.readouterr()
  config = tmp_path / 'config.py'
  config.write_text(
    'import tiny\n'
    'def get_config():\n'
    '  config = tiny.get_config()\n'
    '  config.data.cache_mb = 0\n'
    '  return config\n'
  )
  data.bench_data(
    config=str(config),
    overrides=[f'data.data_dir={data_dir}'],
    seconds=0.1,
    out=None,
  )
  lines = capsys.readouterr().out.splitlines()
  # Without a cache there is one thing to measure.
  assert [line.split()[0] for line in lines] == [
    'pairs,',
    'crops',
    'cache',
    '0',
  ]


def test_refuses_to_measure_for_no_time():
  with pytest.raises(ValueError, match='--seconds 0: needs more than 0'):
    data.bench_data(config=None, overrides=[], seconds=0, out=None)


def test_a_missing_file_is_one_line():
  result = _bench('data', '--config=gone.py')
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith('error: ')
  assert 'gone.py' in line
