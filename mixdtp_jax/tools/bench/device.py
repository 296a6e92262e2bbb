"""bench device: what a GPU or TPU that is new here should show, in one go.

Every command runs in a process of its own. One that fails or is out of time is
named in the results, and the others go on.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import mixdtp_jax
from mixdtp_jax.data.images import to_uint8, write_png
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench import subprocesses
from mixdtp_jax.tools.bench.case import Case, draw_batch
from mixdtp_jax.tools.pages.page import write_page

_TESTS = ('tests/models', 'tests/ops', 'tests/training/test_step.py')
_LINES = 60  # of a command's output, from its end


def bench_device(
  case: Case, *, platform: str, minutes: float, quick: bool
) -> dict[str, Any]:
  """Runs tests, compare, plan and benchmarks; writes a page beside the JSON.

  `platform` is JAX's name for the devices. All commands together take at most
  `minutes`. `quick` takes small images and one file of tests.
  """
  end = time.monotonic() + 60 * minutes
  with tempfile.TemporaryDirectory() as folder:
    results = []
    for name, command in _commands(case.words, quick, pathlib.Path(folder)):
      show(f'{name}: {" ".join(command)}')
      left = end - time.monotonic()
      results.append(_result(name, command, platform, left, folder))
  table = Table(
    'Commands',
    ('', 'seconds', 'ended'),
    [(r['name'], f'{r["seconds"]:.0f}', r['ended']) for r in results],
  )
  show(table)
  if case.out is not None:
    page = pathlib.Path(case.out).with_suffix('.html')
    write_page('device.html', page, table=table, results=results)
  return {'platform': platform, 'results': results}


def _commands(
  recipe: Sequence[str], quick: bool, folder: pathlib.Path
) -> list[tuple[str, list[str]]]:
  """Returns each command's name and arguments, the most important first."""
  crop, sizes = (32, ['64x48']) if quick else (128, ['480x320', '1920x1080'])
  half = [*recipe, '--config.model.dtype=bfloat16']
  beside = ['--opponents', 'compile', '--repeats', '1' if quick else '5']
  pairs = _draw_pairs(folder / 'pairs')
  return [
    ('tests', list(_TESTS[-1:] if quick else _TESTS)),
    ('compare', ['compare', '--random', '0', '--folder', pairs, *recipe,
                 '--size', str(crop), '--crop', str(crop)]),
    ('plan', ['plan', *half, f'--config.data.crop={crop}']),
    ('training', ['bench', 'training', *half, *beside, '--crop', str(crop),
                  '--batch', '2' if quick else 'best']),
    *(
      (f'inference {size}',
       ['bench', 'inference', *half, *beside, '--size', size])
      for size in sizes
    ),
    ('profile', ['bench', 'profile', *half, '--crop', str(crop)]),
  ]  # fmt: skip


def _draw_pairs(folder: pathlib.Path) -> str:
  """Writes two pairs of images for `compare`, which then needs no data set."""
  for kind, images in draw_batch(2, 128, 128, seed=0).items():
    (folder / kind).mkdir(parents=True)
    for number, image in enumerate(images):
      write_png(to_uint8(image), folder / kind / f'{number}.png')
  return str(folder)


def _result(
  name: str, command: list[str], platform: str, seconds: float, folder: str
) -> dict[str, Any]:
  """Runs a command for at most `seconds`; returns its end and its JSON."""
  place = pathlib.Path(folder, name)
  written = place / 'compare.json' if name == 'compare' else place
  if name == 'tests':
    whole = [sys.executable, '-m', 'pytest', '-q', *command]
  else:
    whole = [sys.executable, '-m', 'mixdtp_jax', *command, '--out', str(place)]
  environment = subprocesses.environment() | {
    'MIXDTP_TEST_PLATFORM': platform,
    'JAX_PLATFORMS': platform,
  }
  start = time.monotonic()
  try:
    done = subprocess.run(
      whole,
      cwd=pathlib.Path(mixdtp_jax.__file__).parents[1],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
      timeout=max(seconds, 0),
    )
    ended, output = f'exit status {done.returncode}', done.stdout
  except subprocess.TimeoutExpired as error:
    ended = 'out of time'
    output = (error.stdout or b'').decode(errors='replace')
  return {
    'name': name,
    'command': ' '.join(whole[1:]),
    'seconds': time.monotonic() - start,
    'ended': ended,
    'output': output.strip().splitlines()[-_LINES:],
    'found': json.loads(written.read_text()) if written.is_file() else None,
  }
