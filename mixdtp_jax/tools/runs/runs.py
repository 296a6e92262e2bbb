"""Training runs side by side: python -m mixdtp_jax compare --runs."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.runtime import files
from mixdtp_jax.tools.pages import page
from mixdtp_jax.tools.runs.event_log import Point
from mixdtp_jax.tools.runs.run_folder import Run, read_run, same_score

_PROTOCOL = 'rgb'  # of the short table and the curves; the network's own
_PATHS = ('data.data_dir', 'data.source')  # where data lie, not what they are
# Knobs that decide which images are evaluated.
_IMAGES = ('data.name', 'data.source', 'eval_crop_multiple')
_DRAWN = 100  # points of a loss curve at most, each the mean of its share


def compare_runs(
  workdirs: Sequence[str | os.PathLike], out: str | os.PathLike
) -> None:
  """Sets runs side by side: a printed table, runs.json and runs.html.

  Runs that were evaluated on the same images are ordered by their PSNR.
  Others keep their order, under a sentence that says how their images differ.

  Args:
    workdirs: of the runs, finished or not.
    out: folder of the two files; is made if need be.

  Raises:
    FileNotFoundError: a folder has no checkpoint or no metrics.
    ValueError: no run is given, or one twice; or see `read_run`.
  """
  runs = [
    read_run(workdir, name)
    for workdir, name in zip(workdirs, _names(workdirs), strict=True)
  ]
  note = data_note(runs)
  if not note:
    runs.sort(key=_psnr, reverse=True)
  print('\n'.join(filter(None, (note, format_runs(runs)))))
  paths = [pathlib.Path(out, name) for name in ('runs.json', 'runs.html')]
  files.dump_json(_as_dict(runs, note), paths[0])
  page.write_page(_html(runs, note), paths[1])
  print(*paths, sep='\n')


def _names(workdirs) -> list[str]:
  """The last folder of each path, or the paths where these are not unique."""
  if not workdirs:
    raise ValueError('no runs to compare: give at least one workdir')
  folders = [pathlib.Path(workdir).resolve() for workdir in workdirs]
  for folder, workdir in zip(folders, workdirs, strict=True):
    if folders.count(folder) > 1:
      raise ValueError(f'{workdir} is given twice: name each run once')
  names = [folder.name for folder in folders]
  return names if len(set(names)) == len(names) else list(map(str, workdirs))


def _psnr(run: Run) -> float:
  return run.restored[_PROTOCOL].psnr if run.restored else -math.inf


def data_note(runs: Sequence[Run]) -> str:
  """A sentence for runs that were not evaluated on the same images, or ''.

  Whether they were is measured: equal images have equal scores before they
  are restored, wherever they lie. Runs without an evaluation do not count.
  """
  scored = [run for run in runs if run.restored]
  if all(_same_scores(run, scored[0]) for run in scored):
    return ''
  facts = {
    name: [run.config.get(name) for run in scored] for name in _IMAGES
  } | {
    'images': [run.images or 'all' for run in scored],
    'input PSNR': [f'{run.input[_PROTOCOL].psnr:.3f} dB' for run in scored],
  }
  differing = {k: v for k, v in facts.items() if len(set(v)) > 1}
  each = '; '.join(
    f'{run.name}: '
    + ', '.join(f'{name} = {values[i]}' for name, values in differing.items())
    for i, run in enumerate(scored)
  )
  return (
    f'The runs were evaluated on different images ({each}): their PSNR and '
    'SSIM do not rank them, and they keep the order in which they were given.'
  )


def _same_scores(run: Run, other: Run) -> bool:
  """Whether the rainy images of both have the same scores."""
  common = [name for name in run.input if name in other.input]
  return all(
    same_score(a, b)
    for name in common
    for a, b in zip(run.input[name], other.input[name], strict=True)
  )


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
  """Knobs that differ -> their value in each run, None where there is none.

  Paths of data are left out.
  """
  names = dict.fromkeys(name for run in runs for name in run.config)
  values = {name: [run.config.get(name) for run in runs] for name in names}
  return {
    name: each
    for name, each in values.items()
    if name not in _PATHS and any(value != each[0] for value in each)
  }


_HEAD = ('run', 'parameters', 'updates', 'minutes', 'PSNR / SSIM', 'evaluated')


def _cells(run: Run) -> tuple[str, ...]:
  """A run's row under _HEAD."""
  planned = run.config['num_train_steps']
  made = f'{run.updates:,}'
  images = 'all' if run.images is None else run.images
  when = (
    'at the end' if run.final else f'after {run.evaluated or 0:,}, not final'
  )
  return (
    run.name,
    f'{run.parameters:,}',
    made if run.updates == planned else f'{made} of {planned:,}',
    f'{run.minutes:.1f}',
    _score(run, _PROTOCOL),
    f'{when}, {images} images' if run.restored else 'not yet',
  )


def _score(run: Run, protocol: str) -> str:
  if protocol not in run.restored:
    return '-'
  psnr, ssim = run.restored[protocol]
  return f'{psnr:.4f} / {ssim:.4f}'


def _differing(runs: Sequence[Run]) -> list[list[str]]:
  """A row a knob: its name and its value in each run."""
  return [
    [name, *('-' if value is None else str(value) for value in values)]
    for name, values in differences(runs).items()
  ]


def format_runs(runs: Sequence[Run]) -> str:
  """A line a run, with the knobs that distinguish it at the end."""
  knobs = _differing(runs)
  rows = [
    (*_cells(run), ' '.join(f'{name}={v[i]}' for name, *v in knobs))
    for i, run in enumerate(runs)
  ]
  table = [(*_HEAD, 'what differs'), *rows]
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  left = (0, len(_HEAD) - 1, len(_HEAD))  # columns of text
  lines = [
    '  '.join(
      f'{cell:<{width}}' if i in left else f'{cell:>{width}}'
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in table
  ]
  return '\n'.join([*lines, f'PSNR in dB; protocol {_PROTOCOL}'])


def _as_dict(runs: Sequence[Run], note: str) -> dict[str, Any]:
  """The content of runs.json."""
  return {
    'protocol': _PROTOCOL,
    'note': note,
    'differences': differences(runs),
    'runs': [
      {
        **dataclasses.asdict(run),
        'updates': run.updates,
        'minutes': run.minutes,
        'evaluated': run.evaluated,
        'input': {name: s._asdict() for name, s in run.input.items()},
        'restored': {name: s._asdict() for name, s in run.restored.items()},
      }
      for run in runs
    ],
  }


def _html(runs: Sequence[Run], note: str) -> str:
  """The content of runs.html."""
  knobs = _differing(runs)
  return page.document(
    'Training runs side by side',
    page.section(
      'Results',
      *([page.paragraph(note)] if note else []),
      page.table(_HEAD, [_cells(run) for run in runs]),
      page.paragraph(
        f'PSNR in dB; protocol {_PROTOCOL}. The minutes are of training and '
        'of the evaluations in between, since the first update was made, '
        'without the pauses between restarts.'
      ),
    ),
    page.section(
      'PSNR / SSIM under every protocol',
      page.table(
        ('run', *PROTOCOLS),
        [(run.name, *(_score(run, p) for p in PROTOCOLS)) for run in runs],
      ),
    ),
    page.section(
      'What differs',
      page.table(('knob', *(run.name for run in runs)), knobs)
      if knobs
      else page.paragraph('No knob of the configurations but paths.'),
    ),
    page.section('Curves', *_curves(runs)),
  )


def _curves(runs: Sequence[Run]) -> list[str]:
  curves = {run.name: run.curve(_PROTOCOL) for run in runs}
  psnr = {name: points for name, (_, points) in curves.items()}
  unit = f'PSNR ({_PROTOCOL}, dB)'
  loss = {run.name: _means(run.scalars.get('loss', [])) for run in runs}
  notes = [
    f'Each point of the loss is a mean over 1/{_DRAWN} of what was logged.',
    'PSNR is of the test images that are looked at while training.',
  ]
  rainy = [value for value, points in curves.values() if points]
  if not all(same_score(value, rainy[0]) for value in rainy):
    notes.append('Those are not the same images: the curves do not compare.')
  notes += [
    f'The losses do not compare: {knob} differs.'
    for knob in differences(runs)
    if knob.startswith('loss.')
  ]
  return [
    page.line_chart(
      'PSNR against updates', 'updates', unit, _lines(psnr, 'step')
    ),
    page.line_chart(
      'PSNR against time', 'minutes', unit, _lines(psnr, 'minutes')
    ),
    page.line_chart(
      'Training loss against updates', 'updates', 'loss', _lines(loss, 'step')
    ),
    page.paragraph(' '.join(notes)),
  ]


def _lines(curves: Mapping[str, Sequence[Point]], x: str):
  return [
    (name, [getattr(p, x) for p in points], [p.value for p in points])
    for name, points in curves.items()
  ]


def _means(points: Sequence[Point]) -> list[Point]:
  """At most _DRAWN points, each the mean of neighbours."""
  size = math.ceil(len(points) / _DRAWN) or 1
  return [
    Point(*np.mean(points[i : i + size], axis=0))
    for i in range(0, len(points), size)
  ]
