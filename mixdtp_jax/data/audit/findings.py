"""What an audit found: as a table, as JSON, and as pairs to leave out."""

import collections
import dataclasses
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mixdtp_jax import report
from mixdtp_jax.data.folders import PairFiles

KINDS = {
  'layout': 'files that are not laid out as published; not audited further',
  'count': 'another number of pairs than published',
  'unreadable': 'images that cannot be decoded, or are not RGB',
  'size': 'rainy and clean images of different sizes',
  'misaligned': 'the clean image is shifted against the rainy one',
  'unlike': 'rainy and clean images of different scenes',
  'swapped': 'the rain is in the image that is called clean',
  'duplicate': 'one scene under one rain, several times in a split',
  'repeated': 'one scene under several rains in a split; nothing is left out',
  'leak': 'a scene in training and in a test split, of one set or of two',
  'shared': 'a scene in two training or two test splits; nothing is left out',
}
_SHOWN = 5  # findings of a kind on the console
_NAMED = 4  # pairs of a finding on the console


class PairId(NamedTuple):
  """A pair by its names; as '' the name means the split, and split the set."""

  dataset: str
  split: str
  name: str

  def __str__(self) -> str:
    """As tables show it."""
    return '/'.join(filter(None, self))


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing that was found.

  Attributes:
    kind: a key of KINDS.
    pairs: those that it is about.
    note: what is wrong, in words; may be ''.
    excluded: the pairs of a training split to leave out of training.
  """

  kind: str
  pairs: tuple[PairId, ...]
  note: str = ''
  excluded: tuple[PairId, ...] = ()


@dataclasses.dataclass(frozen=True)
class Audit:
  """Everything that an audit says.

  Attributes:
    sizes: number of pairs by set and split; no split where the layout is wrong.
    findings: in the order of KINDS.
  """

  sizes: dict[str, dict[str, int]]
  findings: tuple[Finding, ...]

  def __post_init__(self):
    """Sorts the findings by kind."""
    order = list(KINDS)
    findings = sorted(self.findings, key=lambda f: order.index(f.kind))
    object.__setattr__(self, 'findings', tuple(findings))


def format_audit(audit: Audit) -> str:
  """A table by set and split, then what was found, long lists cut."""
  lines = [
    f'{"set":<13}{"split":<8}{"pairs":>8}  {"finding":<12}{"found":>7}'
    f'{"pairs":>7}{"left out":>10}'
  ]
  for dataset, sizes in audit.sizes.items():
    # Also splits that are not there, and '' where there is none at all.
    splits = dict.fromkeys(sizes)
    splits |= {
      pair.split: None
      for finding in audit.findings
      for pair in finding.pairs
      if pair.dataset == dataset
    }
    for split in splits:
      lines += _split_rows(audit, dataset, split, sizes.get(split, 0))
  by_kind = collections.defaultdict(list)
  for finding in audit.findings:
    by_kind[finding.kind].append(finding)
  for kind, findings in by_kind.items():
    lines += ['', f'{kind}: {KINDS[kind]}']
    for finding in findings[:_SHOWN]:
      lines += textwrap.wrap(
        _describe(finding), 80, initial_indent='  ', subsequent_indent='    '
      )
    if len(findings) > _SHOWN:
      lines.append(f'  and {len(findings) - _SHOWN} more')
  return '\n'.join(lines)


def _split_rows(audit: Audit, dataset: str, split: str, size: int) -> list[str]:
  """A line for each kind that the split has, or one that it has none."""
  rows = []
  for kind in KINDS:
    found = [
      [pair for pair in finding.pairs if pair[:2] == (dataset, split)]
      for finding in audit.findings
      if finding.kind == kind
    ]
    out = {
      pair
      for finding in audit.findings
      for pair in finding.excluded
      if finding.kind == kind and pair[:2] == (dataset, split)
    }
    if touching := [pairs for pairs in found if pairs]:
      pairs = {pair for pairs in touching for pair in pairs if pair.name}
      rows.append(f'{kind:<12}{len(touching):>7}{len(pairs):>7}{len(out):>10}')
  head = f'{dataset:<13}{split:<8}{size:>8,}  '
  rest = ' ' * len(head)
  return [
    (rest if number else head) + row
    for number, row in enumerate(rows or ['none'])
  ]


def _describe(finding: Finding) -> str:
  named = ', '.join(map(str, finding.pairs[:_NAMED]))
  if len(finding.pairs) > _NAMED:
    named += f' and {len(finding.pairs) - _NAMED} more'
  return f'{named}: {finding.note}' if finding.note else named


def write_audit(audit: Audit, path: str | os.PathLike) -> None:
  """{'sizes': {set: {split: pairs}}, 'findings': [{field: value}, ...]}."""
  with report.replacing(path) as temporary, open(temporary, 'w') as file:
    json.dump(dataclasses.asdict(audit), file, indent=1)
    file.write('\n')


def read_audit(path: str | os.PathLike) -> Audit:
  """Reads what `write_audit` wrote.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no audit.
  """
  try:
    with open(path) as file:
      content = json.load(file)
    findings = tuple(
      Finding(
        finding['kind'],
        tuple(PairId(*pair) for pair in finding['pairs']),
        finding['note'],
        tuple(PairId(*pair) for pair in finding['excluded']),
      )
      for finding in content['findings']
    )
    return Audit(content['sizes'], findings)
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{path} is no audit ({error!r}): write one with python -m mixdtp_jax '
      'prepare --audit'
    ) from error


def leave_out(
  dataset: str, splits: Mapping[str, Sequence[PairFiles]], audit: Audit
) -> dict[str, list[PairFiles]]:
  """The pairs of each split without those that the audit excludes.

  Args:
    dataset: name of the set.
    splits: its pairs, as builders find them.
    audit: of this set, perhaps beside others.

  Raises:
    ValueError: the audit is not of these pairs, or excludes a whole split.
  """
  sizes = {split: len(pairs) for split, pairs in splits.items()}
  if audit.sizes.get(dataset) != sizes:
    raise ValueError(
      f'{dataset} has {sizes} pairs, and the audit is of '
      f'{audit.sizes.get(dataset, "other sets")}: audit it again'
    )
  excluded = {pair for finding in audit.findings for pair in finding.excluded}
  kept = {
    split: [p for p in pairs if PairId(dataset, split, p.name) not in excluded]
    for split, pairs in splits.items()
  }
  for split, pairs in kept.items():
    if sizes[split] and not pairs:
      raise ValueError(f'the audit excludes every pair of {dataset} {split}')
  return kept
