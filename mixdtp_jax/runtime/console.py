"""What commands tell while they work, on stderr: results go to stdout.

Messages are plain lines. On a terminal, progress is one live line below them,
which `show` changes; elsewhere it is a message now and then.
"""

import contextlib
import io
import logging as standard_logging
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from absl import logging
from rich.console import Console
from rich.live import Live
from rich.text import Text

_PACKAGE = str(pathlib.Path(__file__).parents[1])

_console = Console(stderr=True)
_live = Live(
  console=_console,
  refresh_per_second=4,
  transient=True,
  redirect_stdout=False,
  redirect_stderr=False,
)


class _Lines(standard_logging.Handler):
  """Prints messages without a prefix; warnings and errors say so."""

  def filter(self, record: standard_logging.LogRecord) -> bool:
    """Keeps what this package says, and warnings of other libraries.

    Tracebacks of their threads are left out: the error itself comes later.
    """
    ours = record.pathname.startswith(_PACKAGE)
    warns = record.levelno >= standard_logging.WARNING
    return ours or (warns and not record.exc_info)

  def emit(self, record: standard_logging.LogRecord) -> None:
    """Prints a message above the live line."""
    text = self.format(record)
    if record.levelno >= standard_logging.WARNING:
      text = f'{record.levelname.lower()}: {text}'
    _console.print(Text(text), soft_wrap=True)


_LINES = _Lines()


def set_up_streams() -> None:
  r"""Makes stdout and stderr print letters that they lack as escapes (\xfc)."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


def set_up_logging(first: bool = True) -> None:
  """Shows this package's messages on the first host, and warnings on all."""
  standard_logging.getLogger().addHandler(_LINES)
  logging.set_verbosity(logging.INFO if first else logging.WARNING)


def show(text: str) -> None:
  """Changes the live line of a terminal; '' removes it.

  Results must be printed while it is removed.
  """
  if not text:
    _live.stop()
  elif is_live():
    _live.update(Text(text, no_wrap=True, overflow='ellipsis'))
    _live.start(refresh=True)


def is_live() -> bool:
  """Returns whether `show` shows something: on the first host's terminal."""
  return _console.is_interactive and logging.level_info()


def duration(seconds: float) -> str:
  """Returns a time in one unit, such as '45 s', '12 min' or '3.5 h'."""
  if seconds < 100:
    return f'{seconds:.0f} s'
  if seconds < 100 * 60:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'


def progress(
  what: str, total: int, *, percent: bool = False
) -> Callable[[int], None]:
  """Returns a function that tells how far the work `what` is.

  It is called with the number of parts done, up to `total`, which is 100 if
  `percent`. The time left is told after the first call, as compiling comes
  before it. Without a terminal a line comes every ten seconds.
  """
  start = last = time.monotonic()
  first = 0

  def report(done: int) -> None:
    nonlocal start, last, first
    now = time.monotonic()
    if done == total:
      show('')
      return
    line = f'{done} % of {what}' if percent else f'{what} {done} of {total}'
    if not first:
      start, first = now, done
    elif done > first:
      left = (now - start) / (done - first) * (total - done)
      line += f', {duration(left)} left'
    if is_live():
      show(line)
    elif now - last >= 10:
      last = now
      logging.info(line)

  return report


@contextlib.contextmanager
def waiting(what: str, every: float = 30) -> Iterator[None]:
  """Says every `every` seconds that the work `what` goes on, during the body.

  On a terminal, the live line changes every second.
  """
  start, done = time.monotonic(), threading.Event()

  def tell() -> None:
    while not done.wait(1 if is_live() else every):
      line = f'{what}, {duration(time.monotonic() - start)} so far'
      show(line) if is_live() else logging.info(line)

  thread = threading.Thread(target=tell, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
    show('')


def pip_install(extra: str) -> str:
  """Returns the command that adds an extra of this package.

  The package comes from a copy of its repository, and the user's pip may be
  that of another Python.
  """
  copy = pathlib.Path(__file__).parents[2]
  in_copy = (copy / 'pyproject.toml').is_file()
  what = f"-e '{copy}[{extra}]'" if in_copy else f"'.[{extra}]'"
  where = '' if in_copy else ', in the copy of the repository'
  return f'{sys.executable} -m pip install {what}{where}'
