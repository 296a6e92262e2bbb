"""bench start: from mixdtp train to the first completed update.

The data, a few images of noise, is prepared before. JAX logs what it compiles,
and the training saves after its first update, for which it waits for the update
and logs it; then it is killed.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import ml_collections
import numpy as np

from mixdtp_jax.data.datasets import registry
from mixdtp_jax.data.images import write_png
from mixdtp_jax.measure import machine
from mixdtp_jax.recipe import config_file
from mixdtp_jax.recipe.crop_schedule import stages
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.tools.bench import children

_COMPILER = re.compile(
  r'Finished (tracing|jaxpr to MLIR module conversion|XLA compilation)'
  r'.*\btrain_step\b.* in ([\d.e-]+) sec'
)
_DONE = re.compile(r'update 1 of .* loss ')
# In the order in which they come.
PHASES = ('imports', 'weights and data', 'trace', 'compile', 'first update')


def bench_start(
  *,
  config: str | None,
  overrides: Sequence[str],
  repeats: int,
  out: str | None,
) -> None:
  """Measures starts with an empty and with a filled compilation cache.

  Args:
    config: recipe, whose data are replaced; None is the default.
    overrides: 'OPTION=VALUE', options of the recipe to change.
    repeats: starts of each.
    out: JSON file to write; None writes none.

  Raises:
    FileNotFoundError, ValueError: a setting does not fit.
    ChildProcessError: mixdtp train ended before its first update.
  """
  if repeats < 1:
    raise ValueError(f'--repeats {repeats}: needs at least 1')
  config = config or str(config_file.DEFAULT)
  recipe = config_file.load_config_file(config, overrides)
  at = machine.describe()
  print(f'start of {config}\n{machine.one_line(at)}', flush=True)
  found = {'cold': [], 'warm': []}
  with tempfile.TemporaryDirectory() as folder:
    data_dir = _prepare(recipe, pathlib.Path(folder))
    for number in range(repeats):
      cache = pathlib.Path(folder, f'compiled{number}')
      for name, times in found.items():
        workdir = pathlib.Path(folder, f'{name}{number}')
        command = _command(config, overrides, workdir, data_dir, cache)
        times.append(time_start(command, cache))
  print(_format(found))
  if out is not None:
    content = {'what': 'start', 'machine': at, 'seconds': found}
    dump_json(content | {'config': recipe.to_dict()}, out)


def _prepare(
  recipe: ml_collections.ConfigDict, folder: pathlib.Path
) -> pathlib.Path:
  """A prepared set of noise, large enough for every crop of the recipe."""
  side = max(stage.crop for stage in stages(recipe)) + 32
  random = np.random.default_rng(0)
  for split in ('train', 'test'):
    for kind in ('rainy', 'clean'):
      image = random.integers(256, size=(side, side, 3), dtype=np.uint8)
      write_png(image, folder / 'source' / split / kind / '0.png')
  data_dir = folder / 'data'
  registry.prepare(
    'pairs', source=str(folder / 'source'), data_dir=str(data_dir)
  )
  return data_dir


def _command(config, overrides, workdir, data_dir, cache) -> list[str]:
  return [
    *(sys.executable, '-m', 'mixdtp_jax', 'train'),
    f'--config={config}',
    *(f'--config.{text}' for text in overrides),
    f'--workdir={workdir}',
    '--config.data.name=pairs',
    '--config.data.mixture=()',
    '--config.data.source=',
    f'--config.data.data_dir={data_dir}',
    '--config.checkpoint_every_steps=1',
    f'--config.compilation_cache_dir={cache}',
  ]


def time_start(command: list[str], cache: pathlib.Path) -> dict[str, float]:
  """Seconds of each of PHASES, and 'total', until the first update is done.

  Args:
    command: starts mixdtp train.
    cache: where it finds, or puts, native code that was compiled.

  Raises:
    ChildProcessError: it ends before.
  """
  start = time.perf_counter()
  process = subprocess.Popen(
    command,
    env=children.environment()
    | {'JAX_LOG_COMPILES': '1', 'XDG_CACHE_HOME': str(cache)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors='replace',
  )
  lines = []
  try:
    for line in process.stdout:
      lines.append((time.perf_counter() - start, line))
      if _DONE.search(line):
        return _phases(lines)
  finally:
    process.kill()
    process.wait()
    process.stdout.close()
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


def _format(found: dict[str, list[dict[str, float]]]) -> str:
  names = (*PHASES, 'total')
  head = ''.join(f'{name:>18}' for name in names)
  lines = [
    'Seconds from mixdtp train to the first completed update, medians',
    f'{"":<6}{head}',
  ]
  for name, times in found.items():
    medians = (np.median([time[phase] for time in times]) for phase in names)
    lines.append(f'{name:<6}' + ''.join(f'{m:>18.1f}' for m in medians))
  lines.append('cold: nothing is compiled yet; warm: all is, by a cold start')
  return '\n'.join(lines)
