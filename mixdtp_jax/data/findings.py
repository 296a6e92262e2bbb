"""Findings of an audit, and the pairs that training leaves out for them."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mixdtp_jax.data.pairs import PairFiles
from mixdtp_jax.runtime.files import DAMAGED, dump_json, load_json

KINDS = {
  'layout': 'files that are not laid out as published; not audited further',
  'count': 'the number of pairs differs from the published one',
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


class PairId(NamedTuple):
  """The name of a pair; without `name` of a split, without `split` of a set."""

  dataset: str
  split: str
  name: str

  def __str__(self) -> str:
    return '/'.join(filter(None, self))


@dataclasses.dataclass(frozen=True)
class Finding:
  """A fault of some pairs."""

  kind: str  # a key of KINDS
  pairs: tuple[PairId, ...]
  note: str = ''
  excluded: tuple[PairId, ...] = ()  # pairs to leave out of training


@dataclasses.dataclass(frozen=True)
class Audit:
  """All findings, in the order of KINDS.

  `sizes` has the number of pairs by set and split; no split if the layout is
  wrong.
  """

  sizes: dict[str, dict[str, int]]
  findings: tuple[Finding, ...]

  def __post_init__(self):
    order = list(KINDS)
    findings = sorted(self.findings, key=lambda f: order.index(f.kind))
    object.__setattr__(self, 'findings', tuple(findings))


def write_audit(audit: Audit, path: str | os.PathLike) -> None:
  """Writes {'sizes': {set: {split: n}}, 'findings': [{field: value}, ...]}."""
  dump_json(dataclasses.asdict(audit), path, sealed=True)


def read_audit(path: str | os.PathLike) -> Audit:
  """Reads the file of `write_audit`; ValueError if it holds no audit."""
  try:
    content = load_json(path)
    findings = tuple(
      Finding(
        finding['kind'],
        _pair_ids(finding['pairs']),
        finding['note'],
        _pair_ids(finding['excluded']),
      )
      for finding in content['findings']
    )
    sizes = {name: dict(splits) for name, splits in content['sizes'].items()}
    return Audit(sizes, findings)
  except DAMAGED as error:
    raise ValueError(
      f'{path} is no audit ({repr(error):.200}): write one with mixdtp audit'
    ) from None


def _pair_ids(pairs: list[list[str]]) -> tuple[PairId, ...]:
  if not all(isinstance(p, list) and {*map(type, p)} == {str} for p in pairs):
    raise TypeError(f'{pairs!r} are no names of pairs')
  return tuple(PairId(*pair) for pair in pairs)


def leave_out(
  dataset: str, splits: Mapping[str, Sequence[PairFiles]], audit: Audit
) -> dict[str, list[PairFiles]]:
  """Returns the pairs of each split without those that the audit excludes.

  ValueError if the audit is of other pairs, or excludes a whole split.
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
