"""The findings of an audit as tables."""

from mixdtp_jax.data.findings import KINDS, Audit, Finding
from mixdtp_jax.runtime.tables import Table

_SHOWN = 5  # findings of a kind
_NAMED = 4  # pairs of a finding


def audit_tables(audit: Audit) -> list[Table]:
  """Returns counts by set and split, then the first findings of each kind."""
  return [_counts(audit)] + [
    _examples(kind, findings)
    for kind in KINDS
    if (findings := [f for f in audit.findings if f.kind == kind])
  ]


def _counts(audit: Audit) -> Table:
  # By set, split and kind: findings, pairs, excluded pairs.
  counted: dict[tuple[str, str, str], tuple[set, set, set]] = {}
  for number, finding in enumerate(audit.findings):
    for pair in finding.pairs:
      findings, pairs, excluded = counted.setdefault(
        (pair.dataset, pair.split, finding.kind), (set(), set(), set())
      )
      findings.add(number)
      pairs |= {pair} if pair.name else set()
      excluded |= {pair} & set(finding.excluded)
  rows = []
  for dataset, sizes in audit.sizes.items():
    # Findings also name missing splits, and '' for a whole set.
    found = [split for name, split, _ in counted if name == dataset]
    for split in dict.fromkeys([*sizes, *found]):
      start = dataset, split, f'{sizes.get(split, 0):,}'
      kinds = [kind for kind in KINDS if (dataset, split, kind) in counted]
      for kind in kinds:
        counts = (str(len(c)) for c in counted[dataset, split, kind])
        rows.append((*start, kind, *counts))
      if not kinds:
        rows.append((*start, 'none', '', '', ''))
  head = 'set', 'split', 'pairs', 'finding', 'found', 'pairs', 'left out'
  return Table('', head, rows)


def _examples(kind: str, findings: list[Finding]) -> Table:
  rows = [(_describe(finding),) for finding in findings[:_SHOWN]]
  more = len(findings) - _SHOWN
  note = f'and {more} more' if more > 0 else ''
  return Table(f'{kind}: {KINDS[kind]}', ('',), rows, note)


def _describe(finding: Finding) -> str:
  named = ', '.join(map(str, finding.pairs[:_NAMED]))
  if len(finding.pairs) > _NAMED:
    named += f' and {len(finding.pairs) - _NAMED} more'
  return f'{named}: {finding.note}' if finding.note else named
