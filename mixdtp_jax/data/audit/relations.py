"""Relations between the pairs of several data sets: which show one scene.

Every pair is decoded once, in threads, and leaves about 5 kB. Images with equal
pixels are compared once, and so are a rainy image and its clean one if they are
alike. So the 638,492 crops of SPA-Data, where many rainy images share a clean
one, need far fewer comparisons than all with all.
"""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mixdtp_jax.data.audit import scenes
from mixdtp_jax.data.audit.inspection import Inspection, inspect
from mixdtp_jax.data.findings import Audit, Finding, PairId
from mixdtp_jax.data.pairs import PairFiles
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.runtime.console import progress

TRAIN = 'train'  # every other split is for testing
_SAME_RAIN = 0.8  # least correlation of equal rain

Splits = Mapping[str, Sequence[PairFiles]]


class _Pair(NamedTuple):
  id: PairId
  seen: Inspection


def audit(
  sets: Mapping[str, Splits],
  published: Mapping[str, Mapping[str, tuple[int, ...]]],
  layout: Sequence[Finding] = (),
) -> Audit:
  """Inspects every pair of every set, and compares all with all.

  Nothing in a file is an error: it becomes a finding.

  Args:
    sets: the pairs of each set and split; names are unique in a split.
    published: numbers of pairs of published versions, by set and split.
    layout: findings of other sets, which are not laid out as expected.
  """
  sizes = {
    name: {split: len(pairs) for split, pairs in splits.items()}
    for name, splits in sets.items()
  }
  named = [
    (PairId(name, split, pair.name), pair)
    for name, splits in sets.items()
    for split, pairs in splits.items()
    for pair in pairs
  ]
  pairs, report = [], progress('audited', len(named))
  inspections = map_in_threads(
    inspect, (files for _, files in named), most=os.cpu_count() or 1
  )
  for (pair, _), inspection in zip(named, inspections, strict=True):
    pairs.append(_Pair(pair, inspection))
    report(len(pairs))
  problems = [
    Finding(kind, (pair.id,), note, _in_training([pair.id]))
    for pair in pairs
    for kind, note in pair.seen.problems.items()
  ]
  findings = (*_counts(sizes, published), *problems, *_relations(pairs))
  not_laid_out: dict[str, dict[str, int]]
  not_laid_out = {finding.pairs[0].dataset: {} for finding in layout}
  return Audit(sizes | not_laid_out, (*layout, *findings))


def _counts(sizes, published) -> list[Finding]:
  return [
    Finding(
      'count',
      (PairId(name, split, ''),),
      f'{size:,} pairs; published: {" or ".join(map(str, counts))}',
    )
    for name, splits in sizes.items()
    for split, counts in published.get(name, {}).items()
    if (size := splits.get(split, 0)) not in counts
  ]


def _relations(pairs: Sequence[_Pair]) -> list[Finding]:
  """Finds duplicates, repeated scenes, leaks and shared scenes."""
  findings = []
  for members in _scenes(pairs):
    by_split = collections.defaultdict(list)
    for pair in members:
      by_split[pair.id[:2]].append(pair)
    for alike in by_split.values():
      findings += _within_split(alike)
    if len(by_split) > 1:
      ids = tuple(pair.id for pair in members)
      trained = _in_training(ids)
      if 0 < len(trained) < len(ids):
        findings.append(Finding('leak', ids, excluded=trained))
      else:
        findings.append(Finding('shared', ids))
  return findings


def _scenes(pairs: Sequence[_Pair]) -> list[list[_Pair]]:
  """Returns the pairs of each scene that has several, in order.

  A pair belongs to the scenes of both its images if these differ, because the
  rain is heavy or the partner is wrong.
  """
  images: dict[bytes, int] = {}  # numbers, by digest
  spectra: list[np.ndarray] = []
  shown_by = collections.defaultdict(list)
  for index, (_, seen) in enumerate(pairs):
    if seen.spectra is None:
      continue
    count = len(seen.spectra)
    alike = count == 2 and scenes.same_scene(*seen.spectra)
    for side in range(int(alike), count):
      number = images.setdefault(seen.digests[side], len(images))
      if number == len(spectra):
        spectra.append(seen.spectra[side])
      shown_by[number].append(index)
  if not spectra:
    return []
  members = collections.defaultdict(set)
  for number, scene in enumerate(scenes.group(np.stack(spectra))):
    members[scene].update(shown_by[number])
  return [
    [pairs[index] for index in sorted(indices)]
    for indices in members.values()
    if len(indices) > 1
  ]


def _within_split(pairs: Sequence[_Pair]) -> list[Finding]:
  """Finds duplicates and several rains among one split's pairs of a scene."""
  if len(pairs) == 1:
    return []
  rain = np.stack([pair.seen.rain for pair in pairs]).astype(np.float32)
  digests = [pair.seen.digests for pair in pairs]
  pixels = np.array([digests.index(own) for own in digests])
  same = (rain @ rain.T >= _SAME_RAIN) | (pixels[:, None] == pixels)
  labels = scenes.components(np.stack(np.nonzero(same)), len(pairs))
  findings = []
  for label in range(labels.max() + 1):
    group = [p for p, own in zip(pairs, labels, strict=True) if own == label]
    if len(group) > 1:
      ids = tuple(pair.id for pair in group)
      exact = len({pair.seen.digests for pair in group}) == 1
      note = 'exact' if exact else 'near'
      findings.append(Finding('duplicate', ids, note, _in_training(ids[1:])))
  if labels.max():
    ids = tuple(pair.id for pair in pairs)
    findings.append(Finding('repeated', ids, f'{labels.max() + 1} rains'))
  return findings


def _in_training(pairs: Sequence[PairId]) -> tuple[PairId, ...]:
  return tuple(pair for pair in pairs if pair.split == TRAIN)
