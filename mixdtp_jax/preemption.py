"""SIGTERM, by which a cluster says that it will soon take the machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp


class Preempted(Exception):  # noqa: N818 - it is no error
  """SIGTERM came: the run is to save its state and to end."""


class Watch:
  """Looks for SIGTERM at moments at which a run can stop."""

  def __init__(self, manager: ocp.CheckpointManager):
    """Starts unsignalled; `watch` makes and feeds one."""
    self._manager = manager
    self._signalled = False

  def signalled(self, *_) -> None:
    """The signal handler; it only takes a note."""
    self._signalled = True

  def after_update(self, step: int) -> None:
    """To be called after each update, on every host.

    Raises:
      Preempted: on all hosts after the same update, which comes soon after
        any one of them got the signal.
    """
    if self._signalled or self._manager.reached_preemption(step):
      raise Preempted

  def during_evaluation(self) -> None:
    """To be called between the batches of an evaluation.

    Several hosts can only agree on an update: they finish the evaluation.

    Raises:
      Preempted: the signal came to this host, which is alone.
    """
    if self._signalled:
      raise Preempted


@contextlib.contextmanager
def watch(manager: ocp.CheckpointManager) -> Iterator[Watch]:
  """Catches SIGTERM as long as it is open.

  Args:
    manager: of the run; for several hosts orbax finds the update to stop at.
  """
  watcher = Watch(manager)
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
