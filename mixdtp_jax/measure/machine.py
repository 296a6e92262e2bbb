"""The machine that figures are of."""

import importlib.metadata
import os
import pathlib
from typing import Any

import jax

_CPU_INFO = pathlib.Path('/proc/cpuinfo')  # of Linux


def cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def describe() -> dict[str, Any]:
  """For the record; to be called before anything is measured."""
  return {
    # Processes that wanted a core in the minute before; starts nothing.
    'load_before': os.getloadavg()[0],
    'cores': cores(),
    'processor': _processor(),
    'devices': [str(device) for device in jax.devices()],
    'device_kind': jax.devices()[0].device_kind,
    'versions': {name: _version(name) for name in ('jax', 'jaxlib', 'torch')},
    # XLA has no knob for its threads on a CPU: it takes all cores.
    'jax_threads': cores(),
  }


def one_line(
  machine: dict[str, Any], torch: dict[str, Any] | None = None
) -> str:
  """What `describe` and `opponents.describe` say, to be printed."""
  text = (
    f'{machine["cores"]} cores, load {machine["load_before"]:.1f} before; '
    f'JAX {machine["versions"]["jax"]} on {len(machine["devices"])} x '
    f'{machine["device_kind"]}, {machine["jax_threads"]} threads'
  )
  if torch is not None:
    text += (
      f'; PyTorch {torch["version"]} on {torch["device"]}, '
      f'{torch["threads"]} threads'
    )
  return text


def _processor() -> str | None:
  if not _CPU_INFO.exists():
    return None
  for line in _CPU_INFO.read_text().splitlines():
    if line.startswith('model name'):
      return line.split(':', 1)[1].strip()
  return None


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None
