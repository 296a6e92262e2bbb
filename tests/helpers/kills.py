"""Ends this process at a chosen file operation, as a power cut might."""

import itertools
import os
import re
import signal
import sys


def signal_at(pattern: str, number: int = 1, sign: int = signal.SIGKILL):
  """Signals this process at the `number`th operation on paths like `pattern`.

  Python tells of an operation (open, mkdir, rename, remove, ...) before it is
  done, in each thread.
  """
  count, matches = itertools.count(1), re.compile(pattern).search

  def hear(event, args):
    path = args[0] if args else None
    if (
      isinstance(path, str | bytes | os.PathLike)
      and matches(os.fsdecode(path))
      and next(count) == number
    ):
      os.kill(os.getpid(), sign)

  sys.addaudithook(hear)
