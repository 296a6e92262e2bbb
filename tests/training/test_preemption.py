"""SIGTERM at each point where a run can stop."""

import os
import signal

import pytest

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.training import loop, preemption
from tests.helpers.child_runs import get_config

pytestmark = pytest.mark.usefixtures('quick_compiler')


def _signal():
  os.kill(os.getpid(), signal.SIGTERM)


def _stop_in(name, monkeypatch, config, workdir):
  """Trains in this process; the signal comes in a function of loop.py."""
  real = getattr(loop, name)

  def signalled(*args, **kwargs):
    _signal()
    return real(*args, **kwargs)

  monkeypatch.setattr(loop, name, signalled)
  before = signal.getsignal(signal.SIGTERM)
  state = loop.train_and_evaluate(make_recipe(config), str(workdir))
  assert signal.getsignal(signal.SIGTERM) is before
  with saving.open_manager(workdir) as manager:
    assert manager.latest_step() == int(state.step)
  assert not (workdir / 'results' / 'results.json').exists()
  return state


@pytest.fixture
def config(tiny_pairs, tmp_path):
  return get_config(
    tiny_pairs,
    tmp_path / 'data',
    num_train_steps=8,
    checkpoint_every_steps=0,
    eval_every_steps=3,
    batch_size=8,
  )


def test_stops_after_an_update(config, monkeypatch, tmp_path):
  # It is called after the first update.
  state = _stop_in('_due', monkeypatch, config, tmp_path / 'run')
  assert state.step == 2


@pytest.mark.parametrize(('every', 'step'), [(3, 3), (0, 8)])
def test_stops_in_an_evaluation(config, monkeypatch, tmp_path, every, step):
  config.eval_every_steps = every
  scored = []
  monkeypatch.setattr(loop, '_mean_scalars', lambda *_: scored.append(1))
  workdir = tmp_path / 'run'
  state = _stop_in('score_network', monkeypatch, config, workdir)
  assert state.step == step
  assert not scored


def test_is_silent_without_a_signal_and_catches_only_while_open():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.watch() as watch:
    watch.check()
    watch.check()
    _signal()
    with pytest.raises(preemption.Preempted):
      watch.check()
  assert signal.getsignal(signal.SIGTERM) is before
