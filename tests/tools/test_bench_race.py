import time

import pytest

from mixdtp_jax.measure.memory import Peak
from mixdtp_jax.measure.timed import Contender, Cost
from mixdtp_jax.tools.bench import race
from mixdtp_jax.tools.bench.best import best_batch


def _contender(seconds, batch=1, mib=64, calls=None):
  def run():
    time.sleep(seconds)
    if calls is not None:
      calls.append(batch)

  peak = Peak(None if mib is None else mib * 2**20, 'the test')
  return Contender(run, Cost(batch, 1.0, 2.0, 0.5, peak))


def _fails(message):
  def make():
    raise RuntimeError(message)

  return make


def test_ratios_are_of_an_image():
  found = race.race(
    _contender(0.02, batch=4, mib=32),
    {'published': lambda: _contender(0.02, batch=1, mib=64)},
    repeats=3,
  )
  (lap,) = found.laps
  assert len(found.alone) == len(lap.timing.a) == len(lap.timing.b) == 3
  ratio, (low, high) = race.per_image(found, lap)
  assert low <= ratio <= high
  assert ratio == pytest.approx(1 / 4, rel=0.3)
  opponent = race.content(found)['opponents']['published']
  assert opponent['time_ratio'] == ratio
  assert opponent['memory_ratio'] == 0.5
  assert opponent['timing'] == {'jax': lap.timing.a, 'torch': lap.timing.b}
  assert found.cost.start == 3.5


def test_an_opponent_that_fails_is_one_line_and_the_others_stay():
  found = race.race(
    _contender(0.001),
    {
      'compile': _fails('\nno compiler here\nand a long story'),
      'eager': lambda: _contender(0.001, mib=None),
    },
    repeats=1,
  )
  assert [lap.opponent for lap in found.laps] == ['compile', 'eager']
  assert found.laps[0].failure == 'RuntimeError: no compiler here'
  text = race.format_race(found)
  assert 'PyTorch compile: RuntimeError: no compiler here\n' in text
  assert 'long story' not in text
  assert text.splitlines()[3].startswith('PyTorch eager')
  content = race.content(found)['opponents']
  assert content['compile'] == {'failure': found.laps[0].failure}
  assert content['eager']['memory_ratio'] is None


def test_an_opponent_is_made_after_jax_has_run_alone():
  calls = []

  def make():
    calls.append('made')
    return _contender(0, batch=2, calls=calls)

  race.race(_contender(0, batch=1, calls=calls), {'eager': make}, repeats=2)
  # In turns, each timed run comes after one that is not timed.
  assert calls == [1, 1, 'made', 1, 1, 2, 2, 2, 2, 1, 1]


def test_alone_there_is_no_comparison():
  found = race.race(_contender(0.01), {}, repeats=2)
  assert found.seconds == pytest.approx(0.01, rel=0.5)
  assert 'PyTorch' not in race.format_race(found)


def test_no_repeats_are_refused():
  with pytest.raises(ValueError, match='--repeats 0'):
    race.race(_contender(0), {}, repeats=0)


def _search(rates, most=64):
  """Over rates by batch; MemoryError beyond them."""

  def rate(batch):
    if batch not in rates:
      raise MemoryError('full')
    return rates[batch]

  return best_batch(rate, most)


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


def test_one_image_must_fit():
  with pytest.raises(MemoryError, match='full'):
    _search({})
  with pytest.raises(ValueError, match='--most 0'):
    _search({}, most=0)
