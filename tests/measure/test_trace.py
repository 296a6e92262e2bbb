"""The trace of a running program, and how its time is divided."""

import time

import jax
import jax.numpy as jnp
import pytest

from mixdtp_jax.measure import trace
from mixdtp_jax.measure.trace import Span, shares


def test_overlaps_count_once():
  spans = [Span('a', 0, 4), Span('b', 2, 6), Span('b', 3, 4), Span('c', 8, 9)]
  found = shares(spans)
  # From 3 to 4 there is one of a and two of b.
  assert found == pytest.approx(
    {'a': 2 + 1 / 2 + 1 / 3, 'b': 1 / 2 + 2 / 3 + 2, 'c': 1}
  )
  assert sum(found.values()) == pytest.approx(7)


def test_a_loop_gets_what_its_body_leaves():
  spans = [Span('loop', 0, 10), Span('a', 1, 3), Span('a', 5, 9)]
  assert shares(spans, {'loop'}) == pytest.approx({'loop': 4, 'a': 6})


def test_a_moment_is_no_time():
  spans = [Span('a', 1, 1), Span('a', 0, 2), Span('b', 2, 2)]
  assert shares(spans) == {'a': 2}
  assert shares([]) == {}


def test_a_run_is_as_long_as_the_clock_says():
  program = jax.jit(lambda x: jnp.sort(x @ x, axis=0))
  x = jnp.ones((600, 600))
  program(x).block_until_ready()
  clock = []

  def run():
    start = time.perf_counter()
    program(x).block_until_ready()
    clock.append(time.perf_counter() - start)

  runs = trace.record(run, repeats=3)
  assert len(runs) == 3
  for found, seconds in zip(runs, clock, strict=True):
    busy = sum(shares(found.spans).values())
    assert 0 < busy <= found.seconds
    assert found.seconds == pytest.approx(seconds, rel=0.05, abs=1e-3)
    names = [span.name for span in found.spans]
    assert any('sort' in name for name in names)


def test_work_is_busy_time_and_a_pause_is_idle_time():
  program = jax.jit(jnp.sort)
  x = jax.random.normal(jax.random.key(0), (2_000_000,))
  program(x).block_until_ready()
  clock = []

  def run():
    start = time.perf_counter()
    program(x).block_until_ready()
    pause = time.perf_counter()
    time.sleep(0.5)
    clock.append((pause - start, time.perf_counter() - pause))

  apart = []
  for found, times in zip(trace.record(run, repeats=3), clock, strict=True):
    busy = sum(shares(found.spans).values())
    both = zip((busy, found.seconds - busy), times, strict=True)
    apart.append(max(abs(one / other - 1) for one, other in both))
  assert min(apart) < 0.1  # of the run that noise disturbed least
