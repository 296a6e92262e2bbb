"""How much memory a computation needs at its peak, beyond what is held."""

import contextlib
import ctypes
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

_CLEAR_REFS = pathlib.Path('/proc/self/clear_refs')
_STATUS = pathlib.Path('/proc/self/status')


class Peak(NamedTuple):
  """A peak, and what it was read from.

  Attributes:
    bytes: the most that was held, less what was held before; None where it
      cannot be known.
    source: the counter, or why there is no number.
  """

  bytes: int | None
  source: str


def peak_of_process(thunk: Callable[[], Any]) -> Peak:
  """The peak of a thunk that computes in this process's own memory.

  Linux keeps the high-water mark of the resident memory and lets a process
  reset its own (proc_pid_clear_refs(5), the value 5).
  """
  # What earlier work freed would otherwise serve the thunk unseen.
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).malloc_trim(0)  # glibc alone has it
  try:
    _CLEAR_REFS.write_text('5')
  except OSError as error:  # not Linux, or not allowed
    thunk()
    return Peak(None, f'not known: {error}')
  before = _status_bytes('VmRSS')
  thunk()
  peak = _status_bytes('VmHWM')
  return Peak(
    max(peak - before, 0), 'high-water mark of the resident memory (VmHWM)'
  )


def planned(compiled: jax.stages.Compiled) -> Peak:
  """What XLA allocates to run a compiled function, beyond its arguments.

  For devices with memory of their own: JAX's counter there is the peak since
  its start, cannot be reset, and so says little about one function.
  """
  plan = compiled.memory_analysis()
  if plan is None:
    return Peak(None, 'not known: no memory_analysis() on this device')
  # A donated argument's memory is an output's, and was held before.
  bytes_ = (
    plan.temp_size_in_bytes
    + plan.output_size_in_bytes
    - plan.alias_size_in_bytes
  )
  return Peak(bytes_, "XLA's plan, compiled.memory_analysis()")


def _status_bytes(field: str) -> int:
  for line in _STATUS.read_text().splitlines():
    if line.startswith(f'{field}:'):
      return int(line.split()[1]) * 1024  # the file says kB and means KiB
  raise OSError(f'{_STATUS} has no {field}')
