import itertools
import os
import subprocess
import sys
import threading
import time

import pytest

from mixdtp_jax.data.threads import map_in_threads


def test_keeps_the_order():
  def slow_first(item):
    time.sleep(0.1 * (item == 0))
    return -item

  assert list(map_in_threads(slow_first, range(50))) == list(range(0, -50, -1))
  assert list(map_in_threads(slow_first, [])) == []


def test_runs_as_many_at_once_as_there_are_cores(monkeypatch):
  monkeypatch.setattr(os, 'cpu_count', lambda: 3)
  together = threading.Barrier(3, timeout=20)  # breaks where fewer come
  assert len(list(map_in_threads(lambda _: together.wait(), range(6)))) == 6


def test_takes_a_few_of_endless_items():
  taken = itertools.count()
  results = map_in_threads(lambda item: item, taken)
  assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
  assert next(taken) <= 5 + 2 * min(os.cpu_count(), 16)


def test_an_error_comes_in_its_place():
  results = map_in_threads(lambda item: 6 // (3 - item), range(9))
  assert [next(results) for _ in range(3)] == [2, 3, 6]
  with pytest.raises(ZeroDivisionError):
    next(results)


_ENDS = """
import itertools, sys, time
from mixdtp_jax.data.threads import map_in_threads

results = map_in_threads(lambda item: time.sleep(0.05), itertools.count())
next(results)
raise RuntimeError('the end')
"""


def test_work_under_way_does_not_keep_a_failed_process():
  result = subprocess.run(
    [sys.executable, '-c', _ENDS], capture_output=True, text=True, timeout=60
  )
  assert result.returncode == 1
  assert result.stderr.splitlines()[-1] == 'RuntimeError: the end'
