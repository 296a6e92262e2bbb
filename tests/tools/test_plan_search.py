"""The largest batch, of devices whose memory is known exactly."""

import pytest

from mixdtp_jax.tools.plan.step import (
  Memory,
  StepPlan,
  Times,
  largest_batch,
  next_to_try,
)

_UNIT = 4
_STATE = 50
_AVAILABLE = 1000


def _plan(temporaries, told=True):
  """A plan by the batch, of which a unit keeps `temporaries(units)`."""

  def plan(batch_size):
    memory = Memory(_STATE, int(temporaries(batch_size / _UNIT)), 0)
    needed = memory.arguments + memory.temporaries
    fits = needed <= _AVAILABLE
    return StepPlan(
      batch_size=batch_size,
      crop=8,
      remat='none',
      compile_seconds=0,
      needed=needed if told or fits else None,
      available=_AVAILABLE,
      fits=fits,
      flops=0,
      seconds=Times(0, None, None, 0),
      memory=memory if fits else None,
    )

  return plan


def _largest(temporaries):
  units = 0
  while _STATE + int(temporaries(units + 1)) <= _AVAILABLE:
    units += 1
  return units


@pytest.mark.parametrize('start', [1, 3, 40])
@pytest.mark.parametrize('told', [True, False])
@pytest.mark.parametrize(
  'temporaries',
  [
    lambda n: 100 * n,
    lambda n: 130 + 45 * n,
    lambda n: 300 * n,
    lambda n: 60 * n**1.1,
    lambda n: 950 * n,
  ],
)
def test_finds_the_largest_batch_with_few_plans(temporaries, told, start):
  want = _largest(temporaries)
  best, plans = largest_batch(_plan(temporaries, told), _UNIT, start=start)
  assert best.batch_size == want * _UNIT
  # Where nothing says how far too large a batch is, it is halved.
  assert len(plans) <= (5 if told else 6)
  sizes = [found.batch_size for found in plans]
  assert sizes == sorted(sizes)
  if told:  # the next one was looked at too
    assert (want + 1) * _UNIT in sizes


def test_a_large_batch_is_found_to_a_sixteenth():
  best, plans = largest_batch(_plan(lambda n: n), _UNIT)
  assert 950 * 15 / 16 <= best.batch_size / _UNIT <= 950
  assert len(plans) <= 6


def test_what_is_known_is_not_compiled_again():
  plan = _plan(lambda n: 100 * n)
  asked = []

  def listening(batch_size):
    asked.append(batch_size // _UNIT)
    return plan(batch_size)

  best, plans = largest_batch(listening, _UNIT, known=plan(4 * _UNIT))
  assert best.batch_size == 9 * _UNIT
  assert asked == [9, 10]
  assert len(plans) == 3


def test_nothing_fits():
  best, plans = largest_batch(_plan(lambda n: 951 * n), _UNIT)
  assert best is None
  assert [found.batch_size for found in plans] == [_UNIT]


def test_gives_up_after_so_many_compilations():
  best, plans = largest_batch(_plan(lambda n: n), _UNIT, compiles=2)
  assert best.batch_size < 950 * _UNIT
  assert len(plans) == 2


def test_a_line_is_not_followed_too_far():
  plan = _plan(lambda n: n)
  assert next_to_try({1: plan(_UNIT), 2: plan(2 * _UNIT)}) == 16
