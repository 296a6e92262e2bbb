import time

import pytest

from mixdtp_jax.measure.timing import Timing, paired, seconds


def test_medians_ratio_and_quartiles():
  timing = Timing((1.0, 2.0, 9.0, 4.0, 5.0), (1.0, 1.0, 3.0, 8.0, 1.0))
  # The ratios, in order: 0.5, 1, 2, 3, 5.
  assert timing.median_a == 4
  assert timing.median_b == 1
  assert timing.ratio == 2
  assert timing.spread == (1, 3)


def test_the_two_take_turns_of_an_untimed_and_a_timed_run():
  calls = []
  timing = paired(lambda: calls.append('a'), lambda: calls.append('b'), 4)
  assert ''.join(calls) == 'aabbbbaaaabbbbaa'
  assert len(timing.a) == len(timing.b) == 4


def test_each_time_is_of_its_own_thunk():
  timing = paired(lambda: time.sleep(0.06), lambda: time.sleep(0.02), 3)
  assert min(timing.a) >= 0.06
  assert min(timing.b) >= 0.02
  assert timing.median_b < 0.06 <= timing.median_a
  assert timing.ratio > 1


def test_what_follows_from_the_other_is_not_timed():
  last = []

  def run(name):
    if last != [name]:
      time.sleep(0.2)
    last[:] = [name]

  timing = paired(lambda: run('a'), lambda: run('b'), 3)
  assert max(timing.a + timing.b) < 0.2


@pytest.mark.parametrize('repeats', [0, -1])
def test_no_pairs_are_refused(repeats):
  with pytest.raises(ValueError, match=f'repeats = {repeats}'):
    paired(lambda: None, lambda: None, repeats)


def test_seconds_returns_what_the_thunk_returned():
  took, result = seconds(lambda: time.sleep(0.02) or 'done')
  assert took >= 0.02
  assert result == 'done'
