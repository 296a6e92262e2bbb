"""What the entry points print: our own messages, not every library's."""

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

from absl import logging

from mixdtp_jax.runtime import hosts

_PACKAGE = str(pathlib.Path(__file__).parents[1])


def set_up_logging() -> None:
  """Shows our messages from INFO on, and other libraries' from WARNING on.

  orbax tells each file that it writes; a run's own progress would drown. clu's
  console writer, which prints the metrics, counts as ours. Of several hosts,
  the first tells what goes on, and the others only what is wrong.
  """
  logging.use_absl_handler()  # which app.run does, but not argparse
  logging.set_verbosity(logging.INFO if hosts.is_first() else logging.WARNING)
  logging.get_absl_handler().addFilter(
    lambda record: (
      record.levelno >= logging.converter.absl_to_standard(logging.WARNING)
      or record.pathname.startswith(_PACKAGE)
      or 'metric_writers' in record.pathname
    )
  )


def progress(what: str, total: int) -> Callable[[int], None]:
  """A function of the number done that logs it, every ten seconds at most.

  Args:
    what: begins the line.
    total: the number that will be done in the end.
  """
  start = last = time.monotonic()

  def report(done: int) -> None:
    nonlocal last
    now = time.monotonic()
    if now - last < 10 and done < total:
      return
    last = now
    left = (now - start) / done * (total - done)
    logging.info('%s %d of %d, %.0f s left', what, done, total, left)

  return report


@contextlib.contextmanager
def waiting(what: str, every: float = 30) -> Iterator[None]:
  """Logs again and again that something goes on which says nothing itself.

  Args:
    what: begins the line.
    every: seconds between lines.
  """
  start, done = time.monotonic(), threading.Event()

  def tell() -> None:
    while not done.wait(every):
      logging.info('%s, %.0f s so far', what, time.monotonic() - start)

  thread = threading.Thread(target=tell, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
