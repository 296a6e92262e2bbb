"""A description of the machine on which something is measured."""

import importlib.metadata
import os
import pathlib
import re
from typing import Any

import jax
import psutil

_CPU_INFO = pathlib.Path('/proc/cpuinfo')  # of Linux


def cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def describe() -> dict[str, Any]:
  """Returns hardware, versions and load; to be called before measuring."""
  devices = jax.devices()
  text = _CPU_INFO.read_text() if _CPU_INFO.exists() else ''
  processor = re.search(r'^model name\s*: (.*)', text, re.M)
  return {
    'load_before': psutil.getloadavg()[0],  # processes that wanted a core
    'cores': cores(),
    'processor': processor and processor[1],
    'devices': [str(device) for device in devices],
    'device_kind': devices[0].device_kind,
    'versions': {name: _version(name) for name in ('jax', 'jaxlib', 'torch')},
  }


def one_line(machine: dict[str, Any], torch: dict[str, Any] | None) -> str:
  """Returns a line of the machine and, if given, of PyTorch."""
  text = (
    f'{machine["cores"]} cores, load {machine["load_before"]:.1f} before; '
    f'JAX {machine["versions"]["jax"]} on {len(machine["devices"])} x '
    f'{machine["device_kind"]}, {machine["cores"]} threads'
  )
  if torch is not None:
    text += (
      f'; PyTorch {torch["version"]} on {torch["device"]}, '
      f'{torch["threads"]} threads'
    )
  return text


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None
