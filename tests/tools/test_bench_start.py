import json
import pathlib
import sys

import pytest

from mixdtp_jax.tools.bench import case, start

pytestmark = pytest.mark.slow

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'


def test_a_cold_and_a_warm_start(environment, monkeypatch, tmp_path, capsys):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setenv('XLA_FLAGS', '')  # one device: a batch is small here
  out = tmp_path / 'start.json'
  config = str(_TESTS / 'tiny_prenet.py')
  case.run('start', config=config, overrides=[], repeats=1, out=str(out))
  found = json.loads(out.read_text())['seconds']
  for name in ('cold', 'warm'):
    (times,) = found[name]
    assert set(times) == {*start.PHASES, 'total'}
    assert min(times.values()) > 0
    assert sum(times[phase] for phase in start.PHASES) == pytest.approx(
      times['total']
    )
  assert found['warm'][0]['compile'] < found['cold'][0]['compile']
  assert f'{found["cold"][0]["total"]:.1f}' in capsys.readouterr().out


def test_a_start_that_fails_says_why(tmp_path):
  command = [sys.executable, '-c', 'print("begun"); raise SystemExit("no way")']
  with pytest.raises(
    ChildProcessError, match='mixdtp train ended early: no way'
  ):
    start.time_start(command, tmp_path)
