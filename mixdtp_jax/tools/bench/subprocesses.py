"""Runs benchmarks in processes of their own, which have no history.

The peak of their memory is their own, and they can have any number of CPU
devices.
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

_FOLDER = str(pathlib.Path(mixdtp_jax.__file__).parents[1])
_DEVICES = '--xla_force_host_platform_device_count'
# Words of XLA and PyTorch if memory is too small.
_NO_MEMORY = ('RESOURCE_EXHAUSTED', 'OutOfMemory', 'too little memory')


def environment(devices: int | None = None) -> dict[str, str]:
  """Returns the environment of a process that imports this package.

  With `devices`, a CPU is split into that number of devices.
  """
  paths = filter(None, [_FOLDER, os.environ.get('PYTHONPATH')])
  found = os.environ | {'PYTHONPATH': os.pathsep.join(paths)}
  if devices is not None:
    flags = found.get('XLA_FLAGS', '').split()
    flags = [flag for flag in flags if not flag.startswith(_DEVICES)]
    found['XLA_FLAGS'] = ' '.join([*flags, f'{_DEVICES}={devices}'])
  return found


def bench(
  benchmark: str, words: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns what `mixdtp bench BENCHMARK` writes without PyTorch.

  `words` are the options of the recipe, see `case.Case`.

  Raises:
    MemoryError: there was too little memory.
    ChildProcessError: it failed for another reason.
  """
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder, 'out.json')
    options = {**options, 'opponents': 'none', 'out': out}
    command = [sys.executable, '-m', 'mixdtp_jax', 'bench', benchmark, *words]
    command += [f'--{name}={value}' for name, value in options.items()]
    result = subprocess.run(
      command,
      env=environment(options.get('devices')),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
    if result.returncode == 0:
      return json.loads(out.read_text())
  lines = result.stderr.strip().splitlines()
  last = lines[-1] if lines else f'exit status {result.returncode}'
  killed = result.returncode == -9  # by Linux, which lacked memory
  if killed or any(word in result.stderr for word in _NO_MEMORY):
    raise MemoryError(last)
  raise ChildProcessError(f'{" ".join(command[1:])}: {last}')
