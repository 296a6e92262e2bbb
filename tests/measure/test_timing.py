import time

from mixdtp_jax.measure.timing import paired, seconds


def test_the_two_take_turns_of_an_untimed_and_a_timed_run():
  calls = []
  times = paired(lambda: calls.append('a'), lambda: calls.append('b'), 4)
  assert ''.join(calls) == 'aabbbbaaaabbbbaa'
  assert list(map(len, times)) == [4, 4]


def test_each_time_is_of_its_own_function():
  a, b = paired(lambda: time.sleep(0.06), lambda: time.sleep(0.02), 3)
  assert min(a) >= 0.06 and min(b) >= 0.02


def test_what_follows_from_the_other_is_not_timed():
  last = []

  def run(name):
    if last != [name]:
      time.sleep(0.2)
    last[:] = [name]

  a, b = paired(lambda: run('a'), lambda: run('b'), 3)
  assert max(a + b) < 0.2


def test_seconds_returns_what_the_function_returned():
  took, result = seconds(lambda: time.sleep(0.02) or 'done')
  assert took >= 0.02
  assert result == 'done'
