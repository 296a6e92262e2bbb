"""mixdtp bench data."""

import json
import pathlib

import pytest

from mixdtp_jax.cli import main
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.tools.bench import case
from tests.helpers import tiny

pytestmark = pytest.mark.slow

_HELPERS = pathlib.Path(tiny.__file__).parent


def test_bench_data(tiny_pairs, tmp_path, capsys):
  out = tmp_path / 'new' / 'data.json'
  words = [
    f'--config={_HELPERS / "tiny.py"}',
    f'--config.data.source={tiny_pairs}',
    '--seconds=0.2',
    f'--out={out}',
  ]
  assert main.run_command(['bench', 'data', *words]) == 0
  printed = capsys.readouterr().out
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
    assert f'{rate["median"]:.0f}' in printed
  assert 'crops of 16 pixels in batches of 8' in printed


def test_bench_data_reads_a_prepared_copy(tiny_pairs, tmp_path, capsys):
  data_dir = str(tmp_path / 'data')
  registry.prepare('pairs', source=str(tiny_pairs), data_dir=data_dir)
  capsys.readouterr()
  case.run(
    'data',
    config=str(_HELPERS / 'tiny.py'),
    overrides=[f'data.data_dir={data_dir}', 'data.cache_mb=0'],
    seconds=0.1,
    out=None,
  )
  lines = capsys.readouterr().out.splitlines()
  # Without a cache there is one thing to measure.
  assert lines[0].startswith('data, pairs, 4 training images: crops of 16')
  assert [line.split()[0] for line in lines[2:]] == ['crops', 'cache', '0']


def test_refuses_to_measure_for_no_time():
  with pytest.raises(ValueError, match='--seconds 0: needs more than 0'):
    case.run('data', config=None, overrides=[], seconds=0, out=None)
