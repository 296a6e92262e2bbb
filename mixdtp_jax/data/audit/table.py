"""What an audit found: as a table, as JSON, and as pairs to leave out."""

import collections
import textwrap

from mixdtp_jax.data.findings import KINDS, Audit, Finding

_SHOWN = 5  # findings of a kind on the console
_NAMED = 4  # pairs of a finding on the console


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
