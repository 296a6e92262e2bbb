"""What is printed, and what is not."""

import logging as standard_logging
import pathlib
import time

import pytest
from absl import logging

import mixdtp_jax
from mixdtp_jax.runtime import console

OURS = str(pathlib.Path(mixdtp_jax.__file__).parent / 'training' / 'loop.py')


@pytest.fixture
def handler():
  """absl's handler as `set_up_logging` leaves it; restored afterwards."""
  handler = logging.get_absl_handler()
  filters, verbosity = list(handler.filters), logging.get_verbosity()
  console.set_up_logging()
  yield handler
  handler.filters = filters
  logging.set_verbosity(verbosity)


def shown(handler, path, level):
  record = standard_logging.LogRecord('absl', level, path, 1, '', (), None)
  return bool(handler.filter(record))


def test_our_messages_are_shown_and_other_libraries_only_when_they_warn(
  handler,
):
  assert logging.get_verbosity() == logging.INFO
  orbax = '/site-packages/orbax/checkpoint/manager.py'
  metrics = '/site-packages/clu/metric_writers/logging_writer.py'
  assert shown(handler, OURS, standard_logging.INFO)
  assert shown(handler, metrics, standard_logging.INFO)
  assert not shown(handler, orbax, standard_logging.INFO)
  assert shown(handler, orbax, standard_logging.WARNING)
  assert shown(handler, orbax, standard_logging.ERROR)


def test_progress_is_told_at_most_every_ten_seconds_and_at_the_end(
  monkeypatch,
):
  now, lines = [0.0], []
  monkeypatch.setattr(console.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(
    console.logging, 'info', lambda text, *args: lines.append(text % args)
  )
  report = console.progress('Evaluated', 5)
  for done in range(1, 6):
    now[0] += 4
    report(done)
  assert lines == [
    'Evaluated 3 of 5, 8 s left',
    'Evaluated 5 of 5, 0 s left',
  ]


def test_waiting_tells_again_and_again_until_it_is_over(caplog):
  caplog.set_level('INFO', 'absl')
  with console.waiting('Compiling', every=0.01):
    time.sleep(0.2)
  told = [r.getMessage() for r in caplog.records]
  assert len(told) > 1
  assert all(line == 'Compiling, 0 s so far' for line in told)
  time.sleep(0.05)
  assert len(caplog.records) == len(told)
