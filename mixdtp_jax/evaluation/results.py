"""Results as a table, CSV, JSON and PNG files.

Every file is written under a temporary name in its folder and then renamed,
so that a file which exists is whole. Folders are made as needed.
"""

import csv
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixdtp_jax.data.images import write_png
from mixdtp_jax.evaluation.metrics import Score
from mixdtp_jax.evaluation.score import Row, mean_row
from mixdtp_jax.runtime.files import dump_json, replacing


def format_table(rows: Sequence[Row]) -> str:
  """Mean PSNR and SSIM by protocol: of the input, the result, and the gain.

  The single images are in the CSV and JSON files.
  """
  mean = mean_row(rows)
  head = ('protocol', 'input', 'restored', 'gain')
  lines = [('', *('PSNR / SSIM' for _ in head[1:]))]
  for name, before in mean.input.items():
    after = mean.restored[name]
    gain = Score(*(new - old for new, old in zip(after, before, strict=True)))
    lines.append(
      (
        name,
        f'{before.psnr:.4f} / {before.ssim:.4f}',
        f'{after.psnr:.4f} / {after.ssim:.4f}',
        f'{gain.psnr:+.4f} / {gain.ssim:+.4f}',
      )
    )
  text = [
    f'{first:<8}' + ''.join(f'{cell:>20}' for cell in cells)
    for first, *cells in (head, *lines)
  ]
  return '\n'.join([*text, f'mean over {len(rows)} images; PSNR in dB'])


def write_csv(rows: Sequence[Row], path: str | os.PathLike) -> None:
  """One line an image; columns name, PROTOCOL_{input,restored}_{psnr,ssim}.

  Full precision; the PSNR of identical images is written as inf.
  """
  table = [{'name': row.name, **_columns(row)} for row in rows]
  with replacing(path) as temporary, open(temporary, 'w', newline='') as file:
    writer = csv.DictWriter(file, list(table[0]))
    writer.writeheader()
    writer.writerows(table)


def _columns(row: Row) -> dict[str, float]:
  return {
    f'{protocol}_{which}_{field}': value
    for protocol in row.input
    for which in ('input', 'restored')
    for field, value in getattr(row, which)[protocol]._asdict().items()
  }


def write_json(
  rows: Sequence[Row],
  path: str | os.PathLike,
  context: Mapping[str, Any],
  published: Mapping[str, Any] | None = None,
) -> None:
  """{'context', 'published', 'mean': row, 'images': [row, ...]}, `dump_json`'s.

  A row is {'name', 'input', 'restored'}, the latter two {protocol: {'psnr',
  'ssim'}}.
  """
  content = {
    'context': dict(context),
    'published': dict(published or {}),
    'mean': _as_dict(mean_row(rows)),
    'images': [_as_dict(row) for row in rows],
  }
  dump_json(content, path)


def _as_dict(row: Row) -> dict[str, Any]:
  scores = {
    which: {name: s._asdict() for name, s in getattr(row, which).items()}
    for which in ('input', 'restored')
  }
  return {'name': row.name, **scores}


def write_results(
  folder: str | os.PathLike,
  rows: Sequence[Row],
  image: np.ndarray,
  context: Mapping[str, Any],
  published: Mapping[str, Any] | None = None,
) -> list[pathlib.Path]:
  """Writes results.csv, results.json and comparison.png, and returns them.

  Args:
    folder: is made if need be.
    rows: of the images.
    image: `Panels.image`.
    context: what the rows are of; anything that JSON holds.
    published: `published.placement` of the means, where they have one.
  """
  names = ('results.csv', 'results.json', 'comparison.png')
  paths = [pathlib.Path(folder, name) for name in names]
  write_csv(rows, paths[0])
  write_json(rows, paths[1], context, published)
  write_png(image, paths[2])
  return paths
