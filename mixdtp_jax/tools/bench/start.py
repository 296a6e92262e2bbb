"""bench start: from `mixdtp train` to the first completed update.

The data, two images of noise, is prepared before. JAX logs what it compiles.
The run saves after its first update, so it waits for it and logs it; then it
is killed.
"""

import itertools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from mixdtp_jax.data.datasets import registry
from mixdtp_jax.data.images import write_png
from mixdtp_jax.recipe.crop_schedule import stages
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench.case import Case

# What JAX logs of the three parts of a compilation.
_COMPILER = re.compile(
  r'Finished (tracing|jaxpr to MLIR module conversion|XLA compilation)'
  r'.*\btrain_step\b.* in ([\d.e-]+) sec'
)
# In the order in which they come.
PHASES = ('imports', 'weights and data', 'trace', 'compile', 'first update')


def bench_start(case: Case, *, repeats: int) -> dict[str, Any]:
  """Measures starts with an empty and with a filled compilation cache."""
  machine = case.announce('start')
  found: dict[str, list[dict[str, float]]] = {'cold': [], 'warm': []}
  with tempfile.TemporaryDirectory() as folder:
    data_dir = _prepare(case.recipe, pathlib.Path(folder))
    for number in range(repeats):
      cache = pathlib.Path(folder, f'compiled{number}')
      command = [
        sys.executable, '-m', 'mixdtp_jax', 'train', *case.words,
        '--config.data.name=pairs', '--config.data.mixture=()',
        '--config.data.source=', f'--config.data.data_dir={data_dir}',
        '--config.checkpoint_every_steps=1',
        f'--config.compilation_cache_dir={cache}',
      ]  # fmt: skip
      for name, times in found.items():
        workdir = pathlib.Path(folder, f'{name}{number}')
        times.append(time_start([*command, f'--workdir={workdir}'], cache))
  names = (*PHASES, 'total')
  title = 'Seconds from mixdtp train to the first completed update, medians'
  rows = [
    (name, *(f'{np.median([t[key] for t in times]):.1f}' for key in names))
    for name, times in found.items()
  ]
  note = 'cold: nothing is compiled yet; warm: a cold start compiled everything'
  show(Table(title, ('', *names), rows, note))
  return {'machine': machine, 'seconds': found}


def _prepare(recipe: Recipe, folder: pathlib.Path) -> pathlib.Path:
  """Prepares a set of noise, large enough for every crop of the recipe."""
  side = max(stage.crop for stage in stages(recipe)) + 32
  random = np.random.default_rng(0)
  source, data_dir = folder / 'source', folder / 'data'
  for split, kind in itertools.product(('train', 'test'), ('rainy', 'clean')):
    image = random.integers(256, size=(side, side, 3), dtype=np.uint8)
    write_png(image, source / split / kind / '0.png')
  registry.prepare('pairs', source=str(source), data_dir=str(data_dir))
  return data_dir


def time_start(command: list[str], cache: pathlib.Path) -> dict[str, float]:
  """Returns the seconds of each of PHASES, and their 'total'.

  `command` starts a training run, which is killed after its first update;
  `cache` is the folder of compiled native code. ChildProcessError if the run
  ends before.
  """
  own = {'JAX_LOG_COMPILES': '1', 'XDG_CACHE_HOME': str(cache)}
  lines, start = [], time.perf_counter()
  with subprocess.Popen(
    command,
    env=os.environ | own,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors='replace',
  ) as process:
    for line in process.stdout or ():
      lines.append((time.perf_counter() - start, line))
      if line.startswith('update 1 of '):
        process.kill()
        return _phases(lines)
  last = next((text for _, text in reversed(lines) if text.strip()), '')
  raise ChildProcessError(f'mixdtp train ended early: {last.strip()}')


def _phases(lines: list[tuple[float, str]]) -> dict[str, float]:
  total = lines[-1][0]
  imported = next(at for at, line in lines if 'Finished tracing' in line)
  ready = next(at for at, line in lines if 'Compiling the update' in line)
  times = {'tracing': 0.0, 'jaxpr': 0.0, 'XLA': 0.0}
  for _, line in lines:
    if match := _COMPILER.search(line):
      times[match[1].split()[0]] += float(match[2])
  trace, compiled = times['tracing'] + times['jaxpr'], times['XLA']
  rest = total - ready - trace - compiled
  seconds = (imported, ready - imported, trace, compiled, rest)
  return dict(zip(PHASES, seconds, strict=True)) | {'total': total}
