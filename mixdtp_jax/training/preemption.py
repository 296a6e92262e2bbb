"""SIGTERM, which a cluster sends before it takes the machine away."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

import jax
from absl import logging
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
    """Raises `Preempted`, soon after a host got the signal.

    Call it after each update and each batch of an evaluation, equally often on
    every host: JAX counts the calls to make all hosts stop at the same one.
    """
    self._checks += 1
    if self._signalled or multihost_utils.reached_preemption_sync_point(
      self._checks
    ):
      raise Preempted

  def leave_before_the_first_check(self, signals: socket.socket) -> None:
    """Ends the process at SIGTERM until `check` is called; meant for a thread.

    Python runs a signal's handler only between two instructions, and compiling
    is one instruction that may take minutes. Each byte received is a signal.
    """
    with signals:
      while number := signals.recv(1):
        if number[0] == signal.SIGTERM and not self._checks:
          logging.info(
            'Stopped by SIGTERM before the first update: nothing is lost. '
            'Start the same command again to continue.'
          )
          sys.stdout.flush()
          sys.stderr.flush()
          os._exit(0)


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
  read, write = socket.socketpair()
  write.setblocking(False)
  threading.Thread(
    target=watcher.leave_before_the_first_check, args=[read], daemon=True
  ).start()
  before = signal.signal(signal.SIGTERM, watcher.signalled)
  wakeup = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
  try:
    yield watcher
  finally:
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGTERM, before)
    write.close()  # which ends the thread
