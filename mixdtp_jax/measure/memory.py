"""The peak memory of a computation, beyond what is held before it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from mixdtp_jax.restoration.memory_plan import give_back, held, most_held

_CLEAR_REFS = pathlib.Path('/proc/self/clear_refs')


@dataclasses.dataclass(frozen=True)
class Peak:
  """The most bytes that were held, less those before, and how that is known."""

  bytes: int | None  # None if unknown
  source: str


def peak_of_process(run: Callable[[], Any]) -> Peak:
  """Runs a function that computes in this process's own memory.

  Linux keeps the high-water mark of the resident memory and lets a process
  reset its own (proc_pid_clear_refs(5), the value 5).
  """
  give_back()  # or freed memory would serve the run unseen
  try:
    _CLEAR_REFS.write_text('5')
  except OSError as error:  # not Linux, or not allowed
    run()
    return Peak(None, f'not known: {error}')
  before = held()
  run()
  most = max((most_held() or 0) - before, 0)
  return Peak(most, 'high-water mark of the resident memory (VmHWM)')


def planned(compiled: jax.stages.Compiled) -> Peak:
  """Returns what XLA allocates to run a program, beyond its arguments.

  It is for devices with memory of their own. JAX's counter there is the peak
  since its start and cannot be reset, so it says little about one program.
  """
  plan = compiled.memory_analysis()
  if plan is None:
    return Peak(None, 'not known: no memory_analysis() on this device')
  # A donated argument's memory becomes an output's, and was held before.
  made = plan.output_size_in_bytes - plan.alias_size_in_bytes
  most = plan.temp_size_in_bytes + made
  return Peak(most, "XLA's plan, compiled.memory_analysis()")
