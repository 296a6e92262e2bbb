"""Relations between the pairs of several data sets: which show one scene.

Every pair is decoded once, in threads, and leaves about 5 kB: digests, low
frequencies (scenes.py) and the rain. Images with equal pixels are compared
once, and so are a rainy image and its clean one if they are alike. So the
638,492 crops of SPA-Data, where many rainy images share a clean one, need far
fewer comparisons than all with all.
"""

import collections
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

import numpy as np

from mixdtp_jax.data.audit import scenes
from mixdtp_jax.data.audit.inspection import Inspection, inspect
from mixdtp_jax.data.findings import Audit, Finding, PairId
from mixdtp_jax.data.pairs import PairFiles

TRAIN = 'train'  # every other split is for testing
_SAME_RAIN = 0.8  # least correlation of equal rain

Splits = Mapping[str, Sequence[PairFiles]]


def audit(
  sets: Mapping[str, Splits],
  published: Mapping[str, Mapping[str, tuple[int, ...]]],
  progress: Callable[[int], None] = lambda done: None,
) -> Audit:
  """Inspects every pair of every set, and compares all with all.

  Nothing in a file is an error: it becomes a finding.

  Args:
    sets: the pairs of each set and split; names are unique in a split.
    published: numbers of pairs of published versions, by set and split.
    progress: called with the number of pairs done.
  """
  sizes = {
    name: {split: len(pairs) for split, pairs in splits.items()}
    for name, splits in sets.items()
  }
  ids: list[PairId] = []
  files: list[PairFiles] = []
  for name, splits in sets.items():
    for split, pairs in splits.items():
      ids += [PairId(name, split, pair.name) for pair in pairs]
      files += pairs
  inspections = []
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for done, inspection in enumerate(pool.map(inspect, files), 1):
      inspections.append(inspection)
      progress(done)
  findings = [
    *_counts(sizes, published),
    *_problems(ids, inspections),
    *_relations(ids, inspections),
  ]
  return Audit(sizes, tuple(findings))


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


def _problems(
  ids: Sequence[PairId], inspections: Sequence[Inspection]
) -> list[Finding]:
  return [
    Finding(kind, (pair,), note, _in_training([pair]))
    for pair, inspection in zip(ids, inspections, strict=True)
    for kind, note in inspection.problems.items()
  ]


def _relations(
  ids: Sequence[PairId], inspections: Sequence[Inspection]
) -> list[Finding]:
  """Finds duplicates, repeated scenes, leaks and shared scenes."""
  findings = []
  for members in _scenes(inspections):
    by_split = collections.defaultdict(list)
    for index in members:
      by_split[ids[index][:2]].append(index)
    for indices in by_split.values():
      findings += _within_split(ids, inspections, indices)
    if len(by_split) > 1:
      pairs = tuple(ids[index] for index in members)
      trained = _in_training(pairs)
      if 0 < len(trained) < len(pairs):
        findings.append(Finding('leak', pairs, excluded=trained))
      else:
        findings.append(Finding('shared', pairs))
  return findings


def _scenes(inspections: Sequence[Inspection]) -> list[list[int]]:
  """Returns the pairs of each scene that has several, in order.

  A pair belongs to the scenes of both its images if these differ, because the
  rain is heavy or the partner is wrong.
  """
  images: dict[bytes, int] = {}  # numbers, by digest
  spectra: list[np.ndarray] = []
  shown_by = collections.defaultdict(list)
  for index, inspection in enumerate(inspections):
    if inspection.spectra is None:
      continue
    count = len(inspection.spectra)
    alike = count == 2 and scenes.same_scene(*inspection.spectra)
    for side in range(int(alike), count):
      number = images.setdefault(inspection.digests[side], len(images))
      if number == len(spectra):
        spectra.append(inspection.spectra[side])
      shown_by[number].append(index)
  if not spectra:
    return []
  members = collections.defaultdict(set)
  for number, scene in enumerate(scenes.group(np.stack(spectra))):
    members[scene].update(shown_by[number])
  return [sorted(pairs) for pairs in members.values() if len(pairs) > 1]


def _within_split(
  ids: Sequence[PairId],
  inspections: Sequence[Inspection],
  indices: Sequence[int],
) -> list[Finding]:
  """Finds duplicates and several rains among one split's pairs of a scene."""
  if len(indices) == 1:
    return []
  rain = np.stack([inspections[i].rain for i in indices]).astype(np.float32)
  numbers: dict[tuple[bytes, ...], int] = {}
  pixels = np.array(
    [numbers.setdefault(inspections[i].digests, i) for i in indices]
  )
  same = (rain @ rain.T >= _SAME_RAIN) | (pixels[:, None] == pixels)
  labels = scenes.components(np.stack(np.nonzero(same)), len(indices))
  findings = []
  for label in range(labels.max() + 1):
    group = [i for i, own in zip(indices, labels, strict=True) if own == label]
    if len(group) > 1:
      exact = len({inspections[i].digests for i in group}) == 1
      pairs = tuple(ids[i] for i in group)
      note = 'exact' if exact else 'near'
      findings.append(
        Finding('duplicate', pairs, note, _in_training(pairs[1:]))
      )
  if labels.max():
    pairs = tuple(ids[i] for i in indices)
    findings.append(Finding('repeated', pairs, f'{labels.max() + 1} rains'))
  return findings


def _in_training(pairs: Sequence[PairId]) -> tuple[PairId, ...]:
  return tuple(pair for pair in pairs if pair.split == TRAIN)
