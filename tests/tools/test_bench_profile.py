"""bench profile: what it finds in programs whose parts are known."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from mixdtp_jax.cli import main
from mixdtp_jax.measure import timed
from mixdtp_jax.measure.memory import Peak
from mixdtp_jax.tools.bench import profile

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'


def _timed(function, *arguments):
  program = jax.jit(function).lower(*arguments).compile()
  cost = timed.Cost(1, 0.0, 0.0, 0.0, Peak(None, 'the test'))

  def run():
    return jax.block_until_ready(program(*arguments))

  return timed.Timed(run, cost, program)


def _parts(x):
  """Sorts for most of the time, after five small products."""
  with jax.named_scope('products'):
    y = jax.lax.scan(lambda y, _: (jnp.sin(y @ y), None), x, length=5)[0]
  with jax.named_scope('order'):
    return jnp.sort(jnp.tile(y, (8, 8)), axis=0).sum(1)


@pytest.fixture(scope='module')
def parts():
  computation = _timed(_parts, jnp.ones((128, 128)))
  return profile.profile(computation, 0, {'products', 'order'}, repeats=3)


def test_busy_and_idle_are_the_run(parts):
  busy = sum(time for time, _ in parts.operations.values())
  assert 0 < busy <= parts.seconds
  assert busy + parts.idle == pytest.approx(parts.seconds)
  assert len(parts.untraced) == 3


def test_times_are_found_by_kind_and_by_scope(parts):
  times = {'kind': {}, 'module': {}}
  for operation, (time, _) in parts.operations.items():
    for field, sums in times.items():
      name = getattr(operation, field)
      sums[name] = sums.get(name, 0) + time
  kinds, modules = times.values()
  # A hundred times as long, when nothing else runs: noise cannot turn it.
  assert kinds['sort'] > kinds['dot'] > 0
  assert modules['order'] >= kinds['sort']
  assert modules['products'] >= kinds['dot']
  assert sum(kinds.values()) == pytest.approx(sum(modules.values()))
  counts = {op.kind: n for op, (_, n) in parts.operations.items()}
  assert (counts['dot'], counts['sort']) == (5, 1)


def test_gradients_are_told_from_values():
  def loss(x):
    with jax.named_scope('product'):
      return jnp.sin(x @ x).sum()

  text = jax.jit(jax.grad(loss)).lower(jnp.ones((64, 64))).compile().as_text()
  products = [
    operation.backward
    for operation in profile.read_operations(text, {'product'}).values()
    if (operation.kind, operation.module) == ('dot', 'product')
  ]
  assert {True, False} == set(products)


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compiler')
def test_the_command_profiles_inference_and_an_update(tmp_path, capsys):
  out = tmp_path / 'profile.json'
  config = _TESTS / 'tiny_prenet.py'
  words = [f'--config={config}', '--crop=16', '--repeats=2', f'--out={out}']
  assert main.run_command(['bench', 'profile', *words]) == 0
  printed = capsys.readouterr().out
  found = json.loads(out.read_text())
  rates = found['roofline']['flops']['float32'], found['roofline']['bytes']
  assert all(min(samples) > 1e8 for samples in rates)
  assert set(found['programs']) == {'inference', 'update'}
  for name, program in found['programs'].items():
    times = [operation['seconds'] for operation in program['operations']]
    assert sum(times) + program['idle'] == pytest.approx(program['seconds'])
    assert len(program['untraced']) == 2
    modules = {operation['module'] for operation in program['operations']}
    assert 'progressive/step/conv_in' in modules
    assert ('optimizer' in modules) == (name == 'update')
    assert program['flops'] > 0 < program['traffic']
    assert f'{name}, by module' in printed
