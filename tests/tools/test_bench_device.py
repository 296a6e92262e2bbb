"""bench device: a command that fails, or is out of time, is in the results."""

import json

import pytest

from mixdtp_jax.cli.main import run_command
from mixdtp_jax.tools.bench import device

pytestmark = pytest.mark.slow


def test_without_time_all_commands_are_out_of_time(tmp_path, capfd):
  out = tmp_path / 'device.json'
  status = run_command(
    ['bench', 'device', '--platform=cpu', '--quick', '--config=demo']
    + ['--minutes=0', f'--out={out}']
  )
  assert not status
  results = json.loads(out.read_text())['results']
  names = [result['name'] for result in results]
  assert names[:3] == ['tests', 'compare', 'plan']
  assert {result['ended'] for result in results} == {'out of time'}
  page = out.with_suffix('.html').read_text()
  assert all(f'<h2>{name}</h2>' in page for name in names)
  assert 'out of time' in capfd.readouterr().out


def test_a_command_that_fails_says_why(tmp_path):
  found = device._result(
    'plan', ['plan', '--config=nothing'], 'cpu', 120, str(tmp_path)
  )
  assert found['ended'] == 'exit status 1'
  assert 'nothing' in found['output'][-1]
  assert found['found'] is None
