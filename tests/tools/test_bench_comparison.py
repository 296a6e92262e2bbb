import time

import pytest

from mixdtp_jax.measure.memory import Peak
from mixdtp_jax.measure.timed import Cost, Timed
from mixdtp_jax.recipe.config_file import load_recipe
from mixdtp_jax.tools.bench.beside_torch import (
  bench_training,
  compare,
  fastest_batch,
  table,
)
from mixdtp_jax.tools.bench.case import Case


def _timed(seconds, batch=1, mib=64, calls=None):
  def run():
    time.sleep(seconds)
    if calls is not None:
      calls.append(batch)

  peak = Peak(None if mib is None else mib * 2**20, 'the test')
  return Timed(run, Cost(batch, 1.0, 2.0, 0.5, peak))


def _fails(message):
  def make():
    raise RuntimeError(message)

  return make


def test_ratios_are_for_an_image():
  found = compare(
    _timed(0.02, batch=4, mib=32),
    {'published': lambda: _timed(0.02, batch=1, mib=64)},
    repeats=3,
  )
  variant = found['opponents']['published']
  timing = variant['timing']
  assert len(found['jax']['alone']) == 3
  assert len(timing['jax']) == len(timing['torch']) == 3
  low, high = variant['time_quartiles']
  assert low <= variant['time_ratio'] <= high
  assert variant['time_ratio'] == pytest.approx(1 / 4, rel=0.3)
  assert variant['memory_ratio'] == 0.5
  # Lowering, compiling and the first run.
  row = next(r for r in table(found).rows if r[0] == 'PyTorch published')
  assert row[1] == '3.5'


def test_a_variant_that_fails_is_one_line_and_the_others_stay():
  found = compare(
    _timed(0.001),
    {
      'compile': _fails('\nno compiler here\nand a long story'),
      'eager': lambda: _timed(0.001, mib=None),
    },
    repeats=1,
  )
  failure = {'failure': 'RuntimeError: no compiler here'}
  assert found['opponents']['compile'] == failure
  assert found['opponents']['eager']['memory_ratio'] is None
  text = str(table(found))
  assert 'PyTorch compile: RuntimeError: no compiler here\n' in text
  assert 'long story' not in text
  assert text.splitlines()[2].startswith('PyTorch eager')


def test_a_variant_is_prepared_after_jax_has_run_alone():
  calls = []

  def make():
    calls.append('made')
    return _timed(0, batch=2, calls=calls)

  compare(_timed(0, batch=1, calls=calls), {'eager': make}, repeats=2)
  # In turns, each timed run comes after one that is not timed.
  assert calls == [1, 1, 'made', 1, 1, 2, 2, 2, 2, 1, 1]


def test_jax_can_be_measured_alone():
  found = compare(_timed(0.01), {}, repeats=2)
  assert found['jax']['seconds'] == pytest.approx(0.01, rel=0.5)
  assert 'PyTorch' not in str(table(found))


def test_muon_is_refused_before_the_work(capsys):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  recipe = load_recipe('demo', ['optimizer.name=muon'])
  with pytest.raises(ValueError, match='optimizer.name = muon'):
    bench_training(
      Case(recipe, [], None), crop=16, batch='1', repeats=1, opponents='eager'
    )
  assert not capsys.readouterr().out


def _search(rates, most=64, least=1):
  """Searches among rates by batch; MemoryError beyond them."""

  def rate(batch):
    if batch not in rates:
      raise MemoryError('full')
    return rates[batch]

  return fastest_batch(rate, most, least)


def test_the_batch_is_doubled_until_that_is_of_little_use():
  found = _search({1: 10.0, 2: 19.0, 4: 30.0, 8: 31.0, 16: 99.0})
  assert (found.best, found.ended_by) == (8, 'rate')
  assert list(found.rates) == [1, 2, 4, 8]


def test_the_fastest_batch_need_not_be_the_largest():
  assert _search({1: 10.0, 2: 19.0, 4: 18.0}).best == 2


def test_memory_and_the_limit_end_the_search():
  rates = {1: 1.0, 2: 2.0, 4: 4.0}
  found = _search(rates)
  assert (found.best, found.ended_by) == (4, 'memory')
  found = _search(rates, most=3)
  assert (found.best, found.ended_by) == (2, 'limit')
  assert list(_search(rates, least=2).rates) == [2, 4]


def test_one_image_must_fit():
  with pytest.raises(MemoryError, match='full'):
    _search({})
  with pytest.raises(ValueError, match='--most 0'):
    _search({}, most=0)
