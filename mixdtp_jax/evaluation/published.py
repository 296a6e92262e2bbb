"""Published PSNR and SSIM by data set, and the rank of a result among them.

published.csv has one figure a line; its columns are the fields of `Figure`.

The PSNR of one image differs by more than 1 dB between protocols, so figures
are ranked only within one, and those of an unstated protocol not at all.
"""

import csv
import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mixdtp_jax.evaluation.metrics import Score
from mixdtp_jax.runtime.tables import Table

_HEAD = ('method', 'rank', 'PSNR', 'SSIM', 'protocol', 'trained on',
         'parameters', 'source')  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Figure:
  """One line of published.csv, or a result to rank among them."""

  dataset: str  # as in the option data.name
  method: str  # the network's usual name
  psnr: float  # mean over the test split, in dB
  ssim: float  # likewise
  protocol: str  # a key of metrics.PROTOCOLS; '' if not stated
  trained_on: str = ''  # name of the training set; '' if not stated
  params_millions: float | None = None  # None if not given
  source: str = ''  # publication that states the figure; '' for a result
  note: str = ''  # what a reader must know to compare the figure


@functools.cache
def read() -> tuple[Figure, ...]:
  """Returns all published figures, in the file's order."""
  path = pathlib.Path(__file__).with_name('published.csv')
  found = []
  with path.open(encoding='utf-8', newline='') as file:
    for line in csv.DictReader(file):
      values: dict[str, Any] = dict(line)
      for name in ('psnr', 'ssim', 'params_millions'):
        values[name] = float(values[name]) if values[name] else None
      found.append(Figure(**values))
  return tuple(found)


def figures(dataset: str) -> list[Figure]:
  """Returns the published figures of a data set, in the file's order."""
  return [figure for figure in read() if figure.dataset == dataset]


def ranking(candidates: Sequence[Figure]) -> list[tuple[int, Figure]]:
  """Returns (rank, figure) from the highest PSNR to the lowest, from rank 1.

  PSNR is compared to 0.01 dB, as papers print it. Equal figures share a rank
  and keep their order; the next rank counts them all. NaN comes last.
  """

  def psnr(figure: Figure) -> float:
    return -math.inf if math.isnan(figure.psnr) else round(figure.psnr, 2)

  return [
    (1 + sum(psnr(other) > psnr(figure) for other in candidates), figure)
    for figure in sorted(candidates, key=psnr, reverse=True)
  ]


def rank(
  dataset: str, scores: Mapping[str, Score], name: str = 'this run'
) -> dict[str, Any]:
  """Ranks the mean scores of a data set's whole test split, by protocol.

  `name` is the result's method. The result is {} if nothing is published, or
  {'dataset', 'name', 'ranked': {protocol: [{'rank', ...}, ...]}, 'not_ranked':
  [{...}, ...]} with the fields of `Figure` for `...`. 'not_ranked' has the
  figures of protocols that the result was not scored under.
  """
  if not (published := figures(dataset)):
    return {}
  ranked = {}
  for protocol, score in scores.items():
    rivals = [figure for figure in published if figure.protocol == protocol]
    if rivals:
      result = Figure(dataset, name, *score, protocol)
      ranked[protocol] = [
        {'rank': place, **dataclasses.asdict(figure)}
        for place, figure in ranking([*rivals, result])
      ]
  others = [f for f in published if f.protocol not in scores]
  content = {'dataset': dataset, 'name': name, 'ranked': ranked}
  return content | {'not_ranked': list(map(dataclasses.asdict, others))}


def tables(ranks: Mapping[str, Any]) -> list[Table]:
  """Returns the tables of the ranks from `rank`; none for {}."""
  if not ranks:
    return []
  sources: dict[str, int] = {}  # by text
  ranked = [row for rows in ranks['ranked'].values() for row in rows]
  rows = [_cells(row, sources) for row in [*ranked, *ranks['not_ranked']]]
  notes = [f'[{number}] {text}' for text, number in sources.items()]
  if ranks['not_ranked']:
    notes.insert(
      0,
      'Without rank: the source states no protocol, or one that '
      f'{ranks["name"]} was not scored under.',
    )
  title = f'Published results of {ranks["dataset"]}; ranks hold per protocol'
  return [Table(title, _HEAD, rows, '\n'.join(notes))]


def _cells(row: Mapping[str, Any], sources: dict[str, int]) -> tuple[str, ...]:
  """Returns a figure's row; its source gets a number in `sources`."""
  params, text = row['params_millions'], row['source']
  if text:
    text = '; '.join(filter(None, (text, row['note'])))
    text = f'[{sources.setdefault(text, len(sources) + 1)}]'
  return (
    row['method'],
    str(row.get('rank', '')),
    f'{row["psnr"]:.2f}',
    # Three decimals, or four if the fourth is not 0.
    f'{row["ssim"]:.4f}'.removesuffix('0'),
    row['protocol'] or 'not stated',
    row['trained_on'],
    '' if params is None else f'{params:g} M',
    text,
  )
