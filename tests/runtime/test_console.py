"""What is printed on a terminal and into a pipe, and what is not."""

import os
import pty
import subprocess
import sys
import time

import pytest

from mixdtp_jax.runtime import console
from tests.conftest import REPOSITORY
from tests.helpers.terminal import read_all

PROGRAM = """
import logging, warnings
from absl import logging as absl
from mixdtp_jax.runtime import console, files
console.set_up_logging(first={first})
logging.getLogger('jax').info("Unable to initialize backend 'tpu'")
absl.info('a library tells every file')
logging.getLogger('jax').warning('a library warns')
eval(compile("absl.info('ours, %s', '[bold] :bug:')", files.__file__, 'eval'))
eval(compile("absl.error('damaged')", files.__file__, 'eval'))
report = console.progress('Evaluating', 3)
report(1)
console.show('update 1 of 9')
report(3)
print('result')
"""


def run(first, stderr):
  result = subprocess.run(
    [sys.executable, '-c', PROGRAM.format(first=first)],
    env=os.environ | {'PYTHONPATH': str(REPOSITORY), 'TERM': 'xterm'},
    stdout=subprocess.PIPE,
    stderr=stderr,
    text=True,
    check=True,
  )
  assert result.stdout == 'result\n'
  return result.stderr


def test_in_a_pipe_there_are_plain_lines_without_prefixes():
  assert run(True, subprocess.PIPE).splitlines() == [
    'warning: a library warns',
    'ours, [bold] :bug:',
    'error: damaged',
  ]


def test_other_hosts_tell_only_what_is_wrong():
  assert run(False, subprocess.PIPE).splitlines() == [
    'warning: a library warns',
    'error: damaged',
  ]


@pytest.mark.parametrize('first', [True, False])
def test_a_terminal_has_a_live_line_that_goes(first):
  reader, writer = pty.openpty()
  run(first, writer)
  os.close(writer)
  output = read_all(reader)
  erased = '\x1b[2K'
  assert output.count('error: damaged') == 1
  for line in ('Evaluating 1 of 3', 'update 1 of 9'):
    assert (line in output) == first
  if first:
    # The last thing that happens to the line is that it is erased.
    assert output.rindex(erased) > output.rindex('update 1 of 9')


def test_progress_in_a_pipe_is_told_at_most_every_ten_seconds(monkeypatch):
  now, lines = [0.0], []
  monkeypatch.setattr(console.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(console.logging, 'info', lines.append)
  report = console.progress('Evaluating', 9)
  now[0] += 8  # to compile
  for done in range(1, 10):
    now[0] += 4
    report(done)
  assert lines == [
    'Evaluating 1 of 9',
    'Evaluating 4 of 9, 20 s left',
    'Evaluating 7 of 9, 8 s left',
  ]
  lines.clear()
  report = console.progress('2 pictures', 100, percent=True)
  report(3)
  now[0] += 10
  report(8)
  assert lines == ['8 % of 2 pictures, 3 min left']


def test_waiting_tells_again_and_again_until_it_is_over(caplog):
  caplog.set_level('INFO', 'absl')
  with console.waiting('Compiling', every=0.01):
    time.sleep(0.2)
  told = [r.getMessage() for r in caplog.records]
  assert len(told) > 1
  assert all(line == 'Compiling, 0 s so far' for line in told)
  time.sleep(0.05)
  assert len(caplog.records) == len(told)


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0.4, '0 s'), (99, '99 s'), (100, '2 min'), (5999, '100 min'),
   (6000, '1.7 h'), (360_000, '100.0 h')],
)  # fmt: skip
def test_duration(seconds, text):
  assert console.duration(seconds) == text
