"""A study as tables, as JSON, and as a page with charts and images."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixdtp_jax.evaluation.score import mean_row
from mixdtp_jax.measure.memory import Peak
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.tools.compare.networks import Restored
from mixdtp_jax.tools.compare.speed import Speed
from mixdtp_jax.tools.compare.study import Study
from mixdtp_jax.tools.pages import page


class Table(NamedTuple):
  """A table for the console and the page alike.

  Attributes:
    title: what it is of.
    note: how its numbers are meant.
    head: names of the columns.
    rows: cells, the first of a row names it.
  """

  title: str
  note: str
  head: Sequence[str]
  rows: Sequence[Sequence[str]]


def tables(study: Study) -> list[Table]:
  """All numbers of a study, to be read."""
  return [_stages(study), _scores(study), _times(study), _starts(study),
          _training(study)]  # fmt: skip


def _stages(study):
  return Table(
    'Stages',
    '|JAX - PyTorch| over all images; relative: the largest, in parts of the '
    "stage's largest magnitude. A stage has the name of its PyTorch module; "
    'coarse and final are the outputs.',
    ('stage', 'largest', 'mean', 'relative'),
    [
      (d.stage, f'{d.largest:.1e}', f'{d.mean:.1e}', f'{d.relative:.1e}')
      for d in study.stages
    ],
  )


def _scores(study):
  ours, theirs = mean_row(study.jax_rows), mean_row(study.torch_rows)
  rows = []
  for name, rainy in ours.input.items():
    jax, torch = ours.restored[name], theirs.restored[name]
    rows.append(
      (
        name,
        *(f'{s.psnr:.4f} / {s.ssim:.4f}' for s in (rainy, jax, torch)),
        f'{jax.psnr - torch.psnr:+.1e} / {jax.ssim - torch.ssim:+.1e}',
      )
    )
  return Table(
    'PSNR / SSIM',
    f'Mean over {len(study.jax_rows)} images; PSNR in dB.',
    ('protocol', 'rainy', 'JAX', 'PyTorch', 'JAX - PyTorch'),
    rows,
  )


def _times(study):
  def row(speed):
    timing = speed.timing
    low, high = timing.spread
    return (
      speed.what,
      f'{timing.median_a:.4g} s',
      f'{timing.median_b:.4g} s',
      f'{timing.ratio:.2f}',
      f'{low:.2f} to {high:.2f}',
    )

  repeats = len(study.speeds[0].timing.a)
  return Table(
    'Time',
    f'Medians of {repeats} warm runs of each in turns (A B B A ...); the ratio '
    'is the median, and its quartiles, over pairs of neighbouring runs.',
    ('', 'JAX', 'PyTorch', 'JAX / PyTorch', 'quartiles'),
    [row(speed) for speed in study.speeds],
  )


def _starts(study):
  first = study.speeds[0]
  return Table(
    'Start and memory',
    'Lowering and compilation happen once for each shape; the first run of '
    'PyTorch includes what it prepares. Memory: peak beyond what is held '
    f'between runs, in MiB. JAX: {first.jax.memory.source}. PyTorch: '
    f'{first.torch.memory.source}.',
    ('', 'JAX lower', 'compile', 'first run', 'PyTorch first run',
     'JAX MiB', 'PyTorch MiB'),
    [
      (
        speed.what,
        f'{speed.jax.lower:.3g} s',
        f'{speed.jax.compile:.3g} s',
        f'{speed.jax.first:.3g} s',
        f'{speed.torch.first:.3g} s',
        _mebibytes(speed.jax.memory),
        _mebibytes(speed.torch.memory),
      )
      for speed in study.speeds
    ],
  )  # fmt: skip


def _mebibytes(peak: Peak) -> str:
  return '-' if peak.bytes is None else f'{peak.bytes / 2**20:.0f}'


def _training(study):
  training = study.training
  losses = zip(training.jax_losses, training.torch_losses, strict=True)
  return Table(
    'Training from the same weights on the same batches',
    f'Loss before each update. After the last, all weights are '
    f'{training.of_movement:.1e} of the way apart that PyTorch moved, and '
    f"{training.of_size:.1e} of the weights' norm. Adam divides each gradient "
    'by its own size, so rounding in the smallest gradients counts in full.',
    ('update', 'JAX', 'PyTorch', 'JAX - PyTorch'),
    [
      (str(number), f'{jax:.6f}', f'{torch:.6f}', f'{jax - torch:+.1e}')
      for number, (jax, torch) in enumerate(losses, start=1)
    ],
  )


def format_tables(study: Study) -> str:
  """All tables as text, with the versions and devices above them."""
  blocks = [_summary(study)]
  for title, note, head, rows in tables(study):
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
      '  '.join(
        [cells[0].ljust(widths[0])]
        + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
      )
      for cells in (head, *rows)
    ]
    blocks.append('\n'.join([title, *lines, note]))
  return '\n\n'.join(blocks)


def _summary(study: Study) -> str:
  environment = study.environment
  ours, theirs = environment['jax'], environment['torch']
  return (
    f'JAX {ours["version"]} on {ours["device"]}, PyTorch {theirs["version"]} '
    f'on {theirs["device"]} with {theirs["threads"]} threads; '
    f'{environment["cores"]} cores; {environment["precision"]}'
  )


def write_study(
  folder: str | os.PathLike,
  study: Study,
  settings: Mapping[str, Any],
  config: Mapping[str, Any],
) -> list[pathlib.Path]:
  """Writes compare.json and compare.html, and returns their paths.

  Args:
    folder: is made if need be; files of those names are replaced.
    study: what was found.
    settings: of the command, for the record; anything that JSON holds.
    config: the recipe of the training steps, with the model.
  """
  content = {'settings': settings, 'config': config, **_content(study)}
  html = _page(study, settings)
  folder = pathlib.Path(folder)
  dump_json(content, folder / 'compare.json')
  page.write_page(html, folder / 'compare.html')
  return [folder / 'compare.json', folder / 'compare.html']


def _content(study: Study) -> dict[str, Any]:
  scores = [
    {
      'name': ours.name,
      'rainy': _scores_of(ours.input),
      'jax': _scores_of(ours.restored),
      'torch': _scores_of(theirs.restored),
    }
    for ours, theirs in zip(study.jax_rows, study.torch_rows, strict=True)
  ]
  training = study.training
  return {
    'environment': study.environment,
    'stages': [
      dataclasses.asdict(d) | {'relative': d.relative} for d in study.stages
    ],
    'scores': scores,
    'training': dataclasses.asdict(training)
    | {'of_movement': training.of_movement, 'of_size': training.of_size},
    'speeds': [_speed(speed) for speed in study.speeds],
  }


def _scores_of(scores):
  return {name: score._asdict() for name, score in scores.items()}


def _speed(speed: Speed) -> dict[str, Any]:
  timing, ours, theirs = speed.timing, speed.jax, speed.torch
  return {
    'what': speed.what,
    'jax_lower': ours.lower,
    'jax_compile': ours.compile,
    'jax_first': ours.first,
    'torch_first': theirs.first,
    'timing': {'jax': timing.a, 'torch': timing.b},
    'jax_median': timing.median_a,
    'torch_median': timing.median_b,
    'ratio': timing.ratio,
    'quartiles': timing.spread,
    'jax_memory': ours.memory._asdict(),
    'torch_memory': theirs.memory._asdict(),
  }


def _page(study: Study, settings: Mapping[str, Any]) -> str:
  parts = [
    page.section(title, page.table(head, rows), page.paragraph(note))
    for title, note, head, rows in tables(study)
  ]
  updates = range(1, len(study.training.jax_losses) + 1)
  chart = page.line_chart(
    'Loss of the same batches',
    'update',
    'loss',
    [
      ('JAX', updates, study.training.jax_losses),
      ('PyTorch', updates, study.training.torch_losses),
    ],
  )
  return page.document(
    'The network in JAX and in PyTorch',
    page.paragraph(_summary(study)),
    page.paragraph('; '.join(f'{k}: {v}' for k, v in settings.items())),
    *parts,
    page.section('Loss', chart),
    *_images(study.images),
  )


def _images(images: Sequence[Restored]) -> list[str]:
  between = [np.abs(image.jax - image.torch) for image in images]
  errors = [
    [np.abs(restored - image.clean) for restored in (image.jax, image.torch)]
    for image in images
  ]
  small, large = _factor(between), _factor(errors)
  return [
    page.section(
      image.name,
      page.slider('rainy', image.rainy, 'restored by JAX', image.jax),
      page.slider('JAX', image.jax, 'PyTorch', image.torch),
      page.picture(f'|JAX - PyTorch|, {small:,} times', small * apart),
      page.picture(f'|JAX - clean|, {large:,} times', large * error[0]),
      page.picture(f'|PyTorch - clean|, {large:,} times', large * error[1]),
    )
    for image, apart, error in zip(images, between, errors, strict=True)
  ]


def _factor(maps: Sequence[np.ndarray]) -> int:
  """The largest whole number that leaves all of the maps within [0, 1]."""
  largest = max(float(np.max(m)) for m in maps)
  return max(1, int(1 / largest)) if largest else 1
