"""Scores as a table, as CSV and JSON, and the files of an evaluation."""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mixdtp_jax.evaluation.metrics import Score
from mixdtp_jax.evaluation.score import Row, mean_row
from mixdtp_jax.runtime.files import dump_json, replacing
from mixdtp_jax.runtime.tables import Table


def score_table(rows: Sequence[Row]) -> Table:
  """Returns mean PSNR and SSIM by protocol: before, after, and the gain."""
  mean = mean_row(rows)
  cells = []
  for name, before in mean.input.items():
    after = mean.restored[name]
    both = (f'{s.psnr:.4f} / {s.ssim:.4f}' for s in (before, after))
    psnr, ssim = after.psnr - before.psnr, after.ssim - before.ssim
    cells.append((name, *both, f'{psnr:+.4f} / {ssim:+.4f}'))
  return Table(
    'PSNR / SSIM',
    ('protocol', 'input', 'restored', 'gain'),
    cells,
    f'PSNR in dB; mean over {len(rows)} images.',
  )


def write_csv(rows: Sequence[Row], path: str | os.PathLike) -> None:
  """Writes a line for each image, in full precision.

  The columns are name and PROTOCOL_{input,restored}_{psnr,ssim}.
  """
  lines = [
    {'name': row.name}
    | {
      f'{protocol}_{which}_{field}': value
      for protocol in row.input
      for which in ('input', 'restored')
      for field, value in getattr(row, which)[protocol]._asdict().items()
    }
    for row in rows
  ]
  with (
    replacing(path) as temporary,
    open(temporary, 'w', encoding='utf-8', newline='') as file,
  ):
    writer = csv.DictWriter(file, list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)


def write_json(
  rows: Sequence[Row],
  path: str | os.PathLike,
  context: Mapping[str, Any],
  published: Mapping[str, Any] | None = None,
) -> None:
  """Writes {'context', 'published', 'mean': row, 'images': [row, ...]}.

  A row is {'name', 'input', 'restored'}, the latter two {protocol: {'psnr',
  'ssim'}}. See `dump_json` for numbers that are not finite.
  """
  mean, *images = (
    {
      'name': row.name,
      'input': scores_as_dict(row.input),
      'restored': scores_as_dict(row.restored),
    }
    for row in (mean_row(rows), *rows)
  )
  content: dict[str, Any] = {'context': context, 'published': published or {}}
  content |= {'mean': mean, 'images': images}
  dump_json(content, path, sealed=True)


def scores_as_dict(scores: Mapping[str, Score]) -> dict[str, dict[str, float]]:
  """Returns {protocol: {'psnr', 'ssim'}}, as JSON holds scores."""
  return {name: score._asdict() for name, score in scores.items()}
