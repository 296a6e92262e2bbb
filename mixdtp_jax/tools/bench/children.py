"""Benchmarks in processes of their own: a fresh process has no history.

Its peak of memory is its own, and it can have as many CPU devices as is asked.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import mixdtp_jax

# Of the package, and in the repository of train.py.
ROOT = str(pathlib.Path(mixdtp_jax.__file__).parents[1])
_DEVICES = '--xla_force_host_platform_device_count'
# What XLA, PyTorch and Linux (which kills) say where memory is too small.
_NO_MEMORY = ('RESOURCE_EXHAUSTED', 'OutOfMemory', 'MemoryError')


def environment(devices: int | None = None) -> dict[str, str]:
  """This process's, with the package to import.

  Args:
    devices: that the CPU is to be shown as, where it is the device; None
      leaves them as they are.
  """
  paths = filter(None, [ROOT, os.environ.get('PYTHONPATH')])
  found = os.environ | {'PYTHONPATH': os.pathsep.join(paths)}
  if devices is not None:
    flags = found.get('XLA_FLAGS', '').split()
    flags = [flag for flag in flags if not flag.startswith(_DEVICES)]
    found['XLA_FLAGS'] = ' '.join([*flags, f'{_DEVICES}={devices}'])
  return found


def bench(
  what: str, flags: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
  """What `python -m mixdtp_jax bench WHAT` writes, run without opponents.

  Args:
    what: inference or training.
    flags: by name, those that are None left out; a machine without
      accelerator has as many devices as they ask for.
    overrides: KNOB=VALUE, in the place of the config's.

  Raises:
    MemoryError: there was too little memory.
    ChildProcessError: it failed for another reason.
  """
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder, 'out.json')
    flags = {**flags, 'opponents': 'none', 'out': out}
    command = [sys.executable, '-m', 'mixdtp_jax', 'bench', what]
    command += [f'--{k}={v}' for k, v in flags.items() if v is not None]
    command += [f'--config.{knob}' for knob in overrides]
    result = subprocess.run(
      command,
      env=environment(flags.get('devices')),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
    if result.returncode == 0:
      return json.loads(out.read_text())
  lines = result.stderr.strip().splitlines()
  last = lines[-1] if lines else f'exit status {result.returncode}'
  killed = result.returncode == -9
  if killed or any(word in result.stderr for word in _NO_MEMORY):
    raise MemoryError(last)
  raise ChildProcessError(f'{" ".join(command[1:])}: {last}')
