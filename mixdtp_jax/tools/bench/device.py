"""bench device: what a GPU or TPU that is new here should show, in one go.

Every command runs in a process of its own. One that fails or is out of time is
named in the results, and the others go on.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import mixdtp_jax
from mixdtp_jax.data.images import to_uint8, write_png
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench.case import Case, draw_batch
from mixdtp_jax.tools.pages.page import write_page

_TESTS = ('tests/models', 'tests/ops', 'tests/training/test_step.py')
_LINES = 60  # of a command's output, from its end


def bench_device(
  case: Case, *, platform: str, minutes: float, quick: bool
) -> dict[str, Any]:
  """Runs tests, compare, plan and benchmarks; writes a page beside the JSON.

  All commands together take at most `minutes`, one of them half of it. `quick`
  takes small images and one file of tests.
  """
  end = time.monotonic() + 60 * minutes
  results: dict[str, dict[str, Any]] = {}
  with tempfile.TemporaryDirectory() as folder:
    for name, command in _commands(case.words, quick, pathlib.Path(folder)):
      if name == 'plan' and (training := results['training']['found']):
        command.append(f'--config.batch_size={training["jax"]["batch"]}')
      show(f'{name}: {" ".join(command)}')
      left = min(end - time.monotonic(), 30 * minutes)
      results[name] = _result(name, command, platform, left, folder)
  ends = [
    (r['name'], f'{r["seconds"]:.0f}', r['ended']) for r in results.values()
  ]
  tables = [Table('Commands', ('', 'seconds', 'ended'), ends)]
  plan, training = (results[name]['found'] for name in ('plan', 'training'))
  if update := _planned_and_measured(plan, training):
    rows = [
      (what, *('' if number is None else f'{number:.3f}' for number in pair))
      for what, pair in update.items()
    ]
    tables.append(
      Table('An update of training', ('', 'plan', 'measured'), rows)
    )
  show(*tables)
  listed = list(results.values())
  if case.out is not None:
    page = pathlib.Path(case.out).with_suffix('.html')
    write_page('device.html', page, tables=tables, results=listed)
  return {'platform': platform, 'update': update, 'results': listed}


def _planned_and_measured(
  plan: Mapping[str, Any] | None, training: Mapping[str, Any] | None
) -> dict[str, tuple[float | None, float | None]]:
  """Returns pairs of figures of an update; none if it was not measured."""
  if not plan or not training or not (memory := plan['stages'][0]['memory']):
    return {}
  stage, jax = plan['stages'][0], training['jax']
  beyond = memory['temporaries'] + memory['other']
  pairs: dict[str, tuple[float | None, float | None]] = {}
  pairs['seconds'] = stage['seconds']['step'], jax['seconds']
  for what, *sizes in (
    ('beyond state and batch', beyond, jax['memory']['bytes']),
    ('in all', stage['needed'], training['peak_bytes']),
  ):
    planned, measured = (n if n is None else n / 2**30 for n in sizes)
    pairs[f'GiB {what}'] = planned, measured
  return pairs


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
    ('training', ['bench', 'training', *half, *beside, '--crop', str(crop),
                  '--batch', '2' if quick else 'best', '--least', '8']),
    ('plan', ['plan', *half, f'--config.data.crop={crop}']),
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
    # Without options that pytest-xdist alone knows.
    options = ['-q', '-o', 'addopts=-ra']
    whole = [sys.executable, '-m', 'pytest', *options, *command]
  else:
    whole = [sys.executable, '-m', 'mixdtp_jax', *command, '--out', str(place)]
  platforms = {'MIXDTP_TEST_PLATFORM': platform, 'JAX_PLATFORMS': platform}
  start = time.monotonic()
  output = pathlib.Path(folder, f'{name}.txt')
  with (
    output.open('w') as stream,
    subprocess.Popen(
      whole,
      cwd=pathlib.Path(mixdtp_jax.__file__).parents[1],
      env=os.environ | platforms,
      stdout=stream,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    ) as process,
  ):
    try:
      ended = f'exit status {process.wait(max(seconds, 0))}'
    except subprocess.TimeoutExpired:
      ended = 'out of time'
    finally:  # what it has started would hold the device
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
  lines = output.read_text(errors='replace').strip().splitlines()
  return {
    'name': name,
    'command': ' '.join(whole[1:]),
    'seconds': time.monotonic() - start,
    'ended': ended,
    'output': lines[-_LINES:],
    'found': json.loads(written.read_text()) if written.is_file() else None,
  }
