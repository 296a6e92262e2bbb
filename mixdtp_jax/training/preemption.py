"""SIGTERM, which a cluster sends before it takes the machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):  # noqa: N818 - not an error
  """SIGTERM came: the run must save its state and end."""


class PreemptionWatch:
  """A watch for SIGTERM, asked when a run can stop."""

  def __init__(self):
    """Starts without a signal; `watch` sets the handler."""
    self._signalled = False
    self._checks = 0

  def signalled(self, *_) -> None:
    """Handles the signal: only records it."""
    self._signalled = True

  def check(self) -> None:
    """Stops the run if the signal has come.

    Call it after each update and each batch of an evaluation, equally often on
    every host: JAX counts the calls to make all hosts stop at the same one.

    Raises:
      Preempted: on all hosts in the same call, soon after one of them got the
        signal.
    """
    self._checks += 1
    if self._signalled or multihost_utils.reached_preemption_sync_point(
      self._checks
    ):
      raise Preempted


@contextlib.contextmanager
def watch() -> Iterator[PreemptionWatch]:
  """Catches SIGTERM while the body runs."""
  watcher = PreemptionWatch()
  # With several processes, JAX itself catches the signal. Python allows signal
  # handlers only in the main thread.
  main = threading.current_thread() is threading.main_thread()
  if jax.process_count() > 1 or not main:
    yield watcher
    return
  before = signal.signal(signal.SIGTERM, watcher.signalled)
  try:
    yield watcher
  finally:
    signal.signal(signal.SIGTERM, before)
