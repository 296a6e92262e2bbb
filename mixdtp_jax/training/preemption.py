"""SIGTERM, by which a cluster says that it will soon take the machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):  # noqa: N818 - it is no error
  """SIGTERM came: the run is to save its state and to end."""


class Watch:
  """Looks for SIGTERM at moments at which a run can stop."""

  def __init__(self):
    """Starts unsignalled; `watch` makes and feeds one."""
    self._signalled = False
    self._looks = 0

  def signalled(self, *_) -> None:
    """The signal handler; it only takes a note."""
    self._signalled = True

  def look(self) -> None:
    """To be called after each update and each batch of an evaluation.

    Every host calls it equally often: JAX lets them agree on one of the next
    looks by counting them.

    Raises:
      Preempted: on all hosts in the same look, soon after any one of them got
        the signal.
    """
    self._looks += 1
    if self._signalled or multihost_utils.reached_preemption_sync_point(
      self._looks
    ):
      raise Preempted


@contextlib.contextmanager
def watch() -> Iterator[Watch]:
  """Catches SIGTERM as long as it is open."""
  watcher = Watch()
  # JAX itself catches the signal where there are several processes, and Python
  # allows handlers in the main thread alone.
  main = threading.current_thread() is threading.main_thread()
  if jax.process_count() > 1 or not main:
    yield watcher
    return
  before = signal.signal(signal.SIGTERM, watcher.signalled)
  try:
    yield watcher
  finally:
    signal.signal(signal.SIGTERM, before)
