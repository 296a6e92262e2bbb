"""Compares training runs: a table, runs.json and runs.html."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.evaluation.results import scores_as_dict
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.pages.chart import Chart
from mixdtp_jax.tools.pages.page import write_page
from mixdtp_jax.tools.runs.event_log import Point
from mixdtp_jax.tools.runs.run_folder import Run, read_run, same_score
from mixdtp_jax.tools.runs.variants import find_variants, variants_table

_PROTOCOL = 'rgb'  # of the short table and the curves: the network's own
# Say where files are, not which.
_PATHS = ('data.data_dir', 'data.source', 'compilation_cache_dir')
# Options that decide which images are evaluated.
_IMAGES = ('data.name', 'data.source', 'eval_crop_multiple')
_POINTS = 100  # of a loss curve, at most


def compare_runs(
  workdirs: Sequence[str | os.PathLike], out: str | os.PathLike
) -> None:
  """Prints a table of runs, and writes runs.json and runs.html into a folder.

  If variants were trained with the same seeds, a second table compares these.
  ValueError if a run is given twice, and the errors of `read_run`.
  """
  names = _names(workdirs)
  runs = [read_run(*run) for run in zip(workdirs, names, strict=True)]
  note = data_note(runs)
  found = [] if note else find_variants(runs, differences(runs), _PROTOCOL)
  variants = [variants_table(found, _PROTOCOL)] if found else []
  if not note:
    runs.sort(key=_psnr, reverse=True)
  table = run_table(runs, with_options=True)
  show(*([note] if note else []), table, *variants)
  content = [
    dataclasses.asdict(run)
    | {
      'updates': run.last.step,
      'minutes': run.last.minutes,
      'evaluated': run.evaluated,
      'input': scores_as_dict(run.input),
      'restored': scores_as_dict(run.restored),
    }
    for run in runs
  ]
  both = {
    'protocol': _PROTOCOL,
    'note': note,
    'differences': differences(runs),
    'variants': [
      dataclasses.asdict(one) | {'finding': one.finding} for one in found
    ],
  }
  paths = [pathlib.Path(out, name) for name in ('runs.json', 'runs.html')]
  dump_json(both | {'runs': content}, paths[0])
  write_page('runs.html', paths[1], **page_content(runs, note, variants))
  print(*paths, sep='\n')


def _names(workdirs: Sequence[str | os.PathLike]) -> list[str]:
  """Returns the last folder of each path, or the paths if these are equal."""
  folders = [pathlib.Path(workdir).resolve() for workdir in workdirs]
  for folder, workdir in zip(folders, workdirs, strict=True):
    if folders.count(folder) > 1:
      raise ValueError(f'{workdir} is given twice: name each run once')
  names = [folder.name for folder in folders]
  return names if len(set(names)) == len(names) else list(map(str, workdirs))


def _psnr(run: Run) -> float:
  psnr = run.restored[_PROTOCOL].psnr if run.restored else math.nan
  return -math.inf if math.isnan(psnr) else psnr


def data_note(runs: Sequence[Run]) -> str:
  """Returns a sentence if runs were evaluated on different images, else ''.

  Equal images have equal scores before they are restored, wherever they are
  stored. Runs without an evaluation do not count.
  """
  scored = [run for run in runs if run.restored]
  if all(
    same_score(one, other)
    for run in scored
    for name in run.input.keys() & scored[0].input
    for one, other in zip(run.input[name], scored[0].input[name], strict=True)
  ):
    return ''
  facts = [
    {name: run.config.get(name) for name in _IMAGES}
    | {
      'images': run.images or 'all',
      'input PSNR': f'{run.input[_PROTOCOL].psnr:.3f} dB',
    }
    for run in scored
  ]
  differing = [k for k in facts[0] if len({fact[k] for fact in facts}) > 1]
  each = '; '.join(
    f'{run.name}: ' + ', '.join(f'{k} = {fact[k]}' for k in differing)
    for run, fact in zip(scored, facts, strict=True)
  )
  return (
    f'The runs were evaluated on different images ({each}): their PSNR and '
    'SSIM do not rank them, and they keep the order in which they were given.'
  )


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
  """Returns options that differ: their value in each run, None if unknown.

  Paths are left out.
  """
  names = dict.fromkeys(name for run in runs for name in run.config)
  values = {name: [run.config.get(name) for run in runs] for name in names}
  return {
    name: each
    for name, each in values.items()
    if name not in _PATHS and any(value != each[0] for value in each)
  }


def _differing(runs: Sequence[Run]) -> list[list[str]]:
  """Returns a row for each option that differs: its name and its values."""
  return [
    [name, *('-' if value is None else str(value) for value in values)]
    for name, values in differences(runs).items()
  ]


def run_table(runs: Sequence[Run], *, with_options: bool) -> Table:
  """Returns a row for each run, with the options that differ if wanted."""
  head = ['run', 'parameters', 'updates', 'minutes', 'PSNR / SSIM', 'evaluated']
  rows = []
  for run in runs:
    updates, planned = f'{run.last.step:,}', run.config['num_train_steps']
    if run.last.step != planned:
      updates += f' of {planned:,}'
    evaluated = 'not yet'
    if run.restored:
      early = f'after {run.evaluated or 0:,}, not final'
      when = 'at the end' if run.final else early
      evaluated = f'{when}, {run.images or "all"} images'
    numbers = f'{run.parameters:,}', updates, f'{run.last.minutes:.1f}'
    rows.append([run.name, *numbers, _score(run, _PROTOCOL), evaluated])
  if with_options:
    head.append('what differs')
    options = _differing(runs)
    for i, row in enumerate(rows):
      row.append(' '.join(f'{name}={values[i]}' for name, *values in options))
  return Table('', head, rows, f'PSNR in dB; protocol {_PROTOCOL}.')


def _score(run: Run, protocol: str) -> str:
  if protocol not in run.restored:
    return '-'
  psnr, ssim = run.restored[protocol]
  return f'{psnr:.4f} / {ssim:.4f}'


def page_content(
  runs: Sequence[Run], note: str, variants: Sequence[Table] = ()
) -> dict[str, Any]:
  """Returns the variables of templates/runs.html."""
  names = [run.name for run in runs]
  scores = [(run.name, *(_score(run, p) for p in PROTOCOLS)) for run in runs]
  options = _differing(runs)
  without = '' if options else 'No option differs, except for paths.'
  return {
    'note': note,
    'results': run_table(runs, with_options=False),
    'variants': variants,
    'protocols': Table(
      'PSNR / SSIM under every protocol', ('run', *PROTOCOLS), scores
    ),
    'options': Table('What differs', ('option', *names), options, without),
    **_curves(runs),
  }


def _curves(runs: Sequence[Run]) -> dict[str, Any]:
  """Returns the charts of a page, and what to know about them."""
  curves = [run.curve(_PROTOCOL) for run in runs]
  names = [run.name for run in runs]
  psnr = [points for _, points in curves]
  loss = [_means(run.scalars.get('loss', [])) for run in runs]
  notes = [
    f'Each point of the loss is the mean of 1/{_POINTS} of the logged values.',
    'The PSNR is of the test images that are evaluated while training.',
  ]
  rainy = [value for value, points in curves if points]
  if not all(same_score(value, rainy[0]) for value in rainy):
    notes.append('These images differ: the curves do not compare.')
  notes += [
    f'The losses do not compare: {option} differs.'
    for option in differences(runs)
    if option.startswith('loss.')
  ]
  unit, charts = f'PSNR ({_PROTOCOL}, dB)', []
  for title, x, x_label, y_label, lines in (
    ('PSNR by updates', 'step', 'updates', unit, psnr),
    ('PSNR by time', 'minutes', 'minutes', unit, psnr),
    ('Training loss', 'step', 'updates', 'loss', loss),
  ):
    series = [
      (name, [getattr(p, x) for p in points], [p.value for p in points])
      for name, points in zip(names, lines, strict=True)
    ]
    charts.append(Chart(title, x_label, y_label, series))
  return {'charts': charts, 'chart_notes': notes}


def _means(points: Sequence[Point]) -> list[Point]:
  """Returns at most _POINTS points, each the mean of neighbours."""
  size = math.ceil(len(points) / _POINTS) or 1
  return [
    Point(*np.mean(points[i : i + size], axis=0))
    for i in range(0, len(points), size)
  ]
