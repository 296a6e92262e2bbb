"""Published PSNR and SSIM by data set, and a result placed among them.

The figures are in published.csv, one a line; its columns are the fields of
`Figure`, empty where the source does not say.

One image's PSNR differs by more than 1 dB between protocols, so figures are
ranked only within one, and those of an unstated protocol not at all.
"""

import csv
import dataclasses
import functools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score


@dataclasses.dataclass(frozen=True)
class Figure:
  """One line of published.csv, or a result beside them.

  Attributes:
    dataset: as config.data.name.
    method: the network's usual name.
    psnr: mean over the test split, in dB.
    ssim: mean over the test split.
    protocol: a key of metrics.PROTOCOLS, or '' where it is not stated.
    trained_on: as dataset, or '' where it is not stated.
    params_millions: size of the network, or None where it is not given.
    source: where the figure stands.
    note: what a reader has to know of it.
  """

  dataset: str
  method: str
  psnr: float
  ssim: float
  protocol: str
  trained_on: str = ''
  params_millions: float | None = None
  source: str = ''
  note: str = ''


_COLUMNS = [field.name for field in dataclasses.fields(Figure)]


def read(lines: Iterable[str]) -> list[Figure]:
  """The figures of a file like published.csv.

  Raises:
    ValueError: a line has an entry that does not fit, or a figure stands
      there twice; the message has the line's number.
  """
  reader = csv.DictReader(lines)
  if reader.fieldnames != _COLUMNS:
    raise ValueError(f'columns {reader.fieldnames}: needs {_COLUMNS}')
  found = {}
  for record in reader:
    try:
      figure = _parse(record)
      key = (figure.dataset, figure.method, figure.protocol, figure.source)
      if key in found:
        raise ValueError(f'{key} stands there twice')
    except ValueError as error:
      raise ValueError(f'line {reader.line_num}: {error}') from error
    found[key] = figure
  return list(found.values())


def _parse(record: Mapping[str | None, str | None]) -> Figure:
  if None in record or None in record.values():
    raise ValueError(f'needs {len(_COLUMNS)} entries')
  for name in ('dataset', 'method', 'source'):
    if not record[name]:
      raise ValueError(f'no {name}')
  if record['protocol'] not in ('', *PROTOCOLS):
    raise ValueError(
      f'protocol {record["protocol"]!r}: known are {", ".join(PROTOCOLS)}'
    )
  params = record['params_millions']
  numbers = {
    'psnr': float(record['psnr']),
    'ssim': float(record['ssim']),
    'params_millions': float(params) if params else None,
  }
  # Written so that NaN fails too.
  if not (0 < numbers['psnr'] < 100 and 0 < numbers['ssim'] <= 1):
    raise ValueError('psnr needs to be in (0, 100) dB, ssim in (0, 1]')
  if params and not 0 < numbers['params_millions'] < 1e6:
    raise ValueError('params_millions needs to be positive')
  return Figure(**record | numbers)


@functools.cache
def _published() -> tuple[Figure, ...]:
  file = resources.files('mixdtp_jax') / 'evaluation' / 'published.csv'
  return tuple(read(file.read_text(encoding='utf-8').splitlines()))


def figures(dataset: str) -> list[Figure]:
  """What is published for a data set, in the file's order; may be empty."""
  return [figure for figure in _published() if figure.dataset == dataset]


def ranking(candidates: Sequence[Figure]) -> list[tuple[int, Figure]]:
  """(rank, figure) from the highest PSNR to the lowest, ranks from 1.

  PSNR is compared to 0.01 dB, as papers print it. Equal ones share a rank and
  keep their order; the next rank counts them all. NaN comes last.

  Raises:
    ValueError: the figures are of several data sets or protocols, or of a
      protocol that is not stated.
  """
  kinds = sorted({(figure.dataset, figure.protocol) for figure in candidates})
  if len(kinds) > 1 or not all(protocol for _, protocol in kinds):
    found = (f'{name} under {kind or "no stated one"}' for name, kind in kinds)
    raise ValueError(
      'only figures of one data set under one stated protocol can be ranked, '
      f'not those of {", ".join(found)}'
    )

  def psnr(figure: Figure) -> float:
    return -math.inf if math.isnan(figure.psnr) else round(figure.psnr, 2)

  return [
    (1 + sum(psnr(other) > psnr(figure) for other in candidates), figure)
    for figure in sorted(candidates, key=psnr, reverse=True)
  ]


def run_name(crop_multiple: int) -> str:
  """What a run's result is called among published ones."""
  if crop_multiple == 1:
    return 'this run'
  return f'this run, images cut to multiples of {crop_multiple}'


def placement(
  dataset: str, scores: Mapping[str, Score], name: str = 'this run'
) -> dict[str, Any]:
  """A result among the published figures, for a program to read.

  Args:
    dataset: whose whole test split was scored.
    scores: the means by protocol.
    name: of the result, which stands in the ranking as a method.

  Returns:
    {'dataset', 'name', 'ranked': {protocol: [{'rank', ...}, ...]},
    'not_ranked': [{...}, ...]} with the fields of `Figure` for `...`: the
    protocols of `scores` that figures are published in, and the figures of
    other protocols and of none that is stated. {} where nothing is published.
  """
  ranked, others = _place(dataset, scores, name)
  if not (ranked or others):
    return {}
  return {
    'dataset': dataset,
    'name': name,
    'ranked': {
      protocol: [
        {'rank': rank, **dataclasses.asdict(figure)} for rank, figure in rows
      ]
      for protocol, rows in ranked.items()
    },
    'not_ranked': [dataclasses.asdict(figure) for figure in others],
  }


def _place(
  dataset: str, scores: Mapping[str, Score], name: str
) -> tuple[dict[str, list[tuple[int, Figure]]], list[Figure]]:
  """Rankings by protocol, and the figures that are in none of them."""
  published = figures(dataset)
  ranked = {}
  for protocol, score in scores.items():
    rivals = [figure for figure in published if figure.protocol == protocol]
    if rivals:
      result = Figure(dataset, name, *score, protocol)
      ranked[protocol] = ranking([*rivals, result])
  return ranked, [f for f in published if f.protocol not in scores]


def format_placement(
  dataset: str, scores: Mapping[str, Score], name: str = 'this run'
) -> str:
  """`placement` as tables, sources below; '' where nothing is published."""
  ranked, others = _place(dataset, scores, name)
  if not (ranked or others):
    return ''
  sources = {}  # text: its number
  lines = [
    f'Published results of {dataset}; ranks hold within a protocol.',
    f'{"":<4}{"":<12}{"PSNR / SSIM":>16}{"protocol":>12}{"trained on":>12}'
    f'{"params":>9}',
  ]
  for rows in ranked.values():
    lines += [_line(f'{rank}.', figure, sources) for rank, figure in rows]
    lines.append('')
  if others:
    lines += textwrap.wrap(
      'Not ranked, as protocols do not compare: figures of a protocol that the '
      f'source does not state, or that {name} was not scored under.',
      width=80,
    )
    lines += [_line('-', figure, sources) for figure in others]
    lines.append('')
  for text, number in sources.items():
    lines += textwrap.wrap(
      f'[{number}] {text}', width=80, subsequent_indent='    '
    )
  return '\n'.join(lines)


def _line(rank: str, figure: Figure, sources: dict[str, int]) -> str:
  """A figure as a line of the table; its source gets a number in `sources`."""
  # Three decimals, or four where the fourth says something.
  ssim = f'{figure.ssim:.4f}'.removesuffix('0')
  params = figure.params_millions
  line = (
    f'{rank:<4}{figure.method:<12}{f"{figure.psnr:.2f} / {ssim:<6}":>16}'
    f'{figure.protocol or "not stated":>12}{figure.trained_on:>12}'
    f'{"" if params is None else f"{params:g} M":>9}'
  )
  if not figure.source:  # the result itself
    return line.rstrip()
  text = '; '.join(filter(None, (figure.source, figure.note)))
  return f'{line}  [{sources.setdefault(text, len(sources) + 1)}]'
