"""Holds scenes out across data sets: which pairs train, choose and score.

python hold_out.py --audit audit.json --out held_out.json \
  rain100l=RAIN100L rain800=RAIN800 ddn=DDN

The audit is of exactly these folders, by `mixdtp audit`.
Pairs that it links (leak, shared, repeated, duplicate) are one scene, whatever
set they are in; a scene has one role in all sets. `--check` also looks for
mirrored and cropped scenes between the roles, which the audit cannot see.
"""

import argparse
import collections
import json
import pathlib
import random

import numpy as np
from PIL import Image

from mixdtp_jax.data import findings, images
from mixdtp_jax.data.audit import scenes
from mixdtp_jax.data.datasets.registry import DATASETS

RULE = (
  'Scenes are the connected pairs of the audit over all sets at once. A scene '
  'of rain100l/test trains nothing and is held out nowhere. Of the other '
  'scenes, each list sorted and shuffled by random.Random(seed): 60 pairs of '
  'rain800/train to score, in whole scenes; 10 scenes of ddn/train to score '
  'and 5 to choose; 20 scenes of rain100l/train to choose; and 60 pairs of '
  'rain800/train to choose, first those of the scenes just named, then of '
  'scenes that are not in rain100l/train, so that this one stays large. A '
  'scene has one role in all sets. left_out: exact or near copies (all but the '
  'first), pairs that the audit excludes, scenes of rain100l/test, and what a '
  'held-out scene has in a set beyond the numbers above. Everything else '
  'trains. Pairs are named as mixdtp_jax names them.'
)
LINKS = ('leak', 'shared', 'repeated', 'duplicate')
TRAIN = 'train'


def find_pairs(sources):
  """{set: {split: pairs}} of 'NAME=FOLDER' entries."""
  found = {}
  for entry in sources:
    name, _, source = entry.partition('=')
    found[name] = DATASETS[name].find_pairs(pathlib.Path(source), True)
  return found


def group(sets, audit):
  """{pair: scene}; a scene is named by its first pair."""
  ids = [
    findings.PairId(name, split, pair.name)
    for name, splits in sets.items()
    for split, pairs in splits.items()
    for pair in pairs
  ]
  number = {pair: i for i, pair in enumerate(ids)}
  links = [
    (number[finding.pairs[0]], number[pair])
    for finding in audit.findings
    if finding.kind in LINKS
    for pair in finding.pairs[1:]
  ]
  labels = scenes.components(np.array(links, int).reshape(-1, 2).T, len(ids))
  first = {}
  for pair, label in zip(ids, labels, strict=True):
    first.setdefault(label, pair)
  return {p: first[x] for p, x in zip(ids, labels, strict=True)}


def hold_out(sets, audit, seed):
  """{set: {role: pair names}}, as RULE says."""
  scene_of = group(sets, audit)
  # Damaged pairs, copies and leaks.
  bad = {pair for finding in audit.findings for pair in finding.excluded}
  tested = {s for p, s in scene_of.items() if p.split != TRAIN}
  members = collections.defaultdict(lambda: collections.defaultdict(list))
  for pair, scene in scene_of.items():
    if pair.split == TRAIN and pair not in bad and scene not in tested:
      members[pair.dataset][scene].append(pair)
  rng, role, taken = random.Random(seed), {}, collections.defaultdict(set)

  def order(dataset):
    candidates = sorted(members[dataset])
    rng.shuffle(candidates)
    return candidates

  def take(dataset, as_role, candidates, *, pairs=None, scenes=None):
    """Gives whole scenes a role until there are so many pairs or scenes."""
    left = pairs if scenes is None else scenes
    for scene in candidates:
      if left > 0 and role.get(scene, as_role) == as_role:
        role[scene] = as_role
        own = members[dataset][scene]
        own = own[:left] if scenes is None else own
        taken[dataset, as_role].update(own)
        left -= len(own) if scenes is None else 1
    if left:
      raise ValueError(f'{dataset} has too few scenes to {as_role}')

  take('rain800', 'score', order('rain800'), pairs=60)
  for dataset in ('ddn',):
    take(dataset, 'score', order(dataset), scenes=10)
    take(dataset, 'choose', order(dataset), scenes=5)
  take('rain100l', 'choose', order('rain100l'), scenes=20)
  candidates = order('rain800')
  named = [s for s in candidates if role.get(s) == 'choose']
  others = [s for s in candidates if s not in members['rain100l']]
  take('rain800', 'choose', named + others, pairs=60)

  result = {}
  for dataset, splits in sets.items():
    roles = {'choose': [], 'score': [], 'train': [], 'left_out': []}
    for pair in splits[TRAIN]:
      pair = findings.PairId(dataset, TRAIN, pair.name)
      if scene_of[pair] in tested or pair in bad:
        roles['left_out'].append(pair.name)
      elif scene_of[pair] not in role:
        roles['train'].append(pair.name)
      elif pair in taken[dataset, role[scene_of[pair]]]:
        roles[role[scene_of[pair]]].append(pair.name)
      else:
        roles['left_out'].append(pair.name)
    result[dataset] = roles
  _check_disjoint(result, scene_of)
  return result


def _check_disjoint(result, scene_of):
  """No scene has two of the three roles, or one and a place in a test split."""
  roles = collections.defaultdict(set)
  for dataset, by_role in result.items():
    for role in ('choose', 'score', TRAIN):
      for name in by_role[role]:
        roles[scene_of[findings.PairId(dataset, TRAIN, name)]].add(role)
  for pair, scene in scene_of.items():
    if pair.split != TRAIN:
      roles[scene].add('tested')
  assert all(len(own) == 1 for own in roles.values())


def look_for_mirrored(sets, result):
  """Prints training images like a held-out one mirrored or cropped."""
  role_of = {
    (dataset, TRAIN, name): role
    for dataset, by_role in result.items()
    for role, names in by_role.items()
    for name in names
  }
  plain, variants, owner, labels = [], [], [], []
  for dataset, splits in sets.items():
    for split, pairs in splits.items():
      for pair in pairs:
        role = role_of.get((dataset, split, pair.name), 'tested')
        if role == 'left_out':
          continue
        image = Image.fromarray(images.read_image(pair.clean)).convert('L')
        labels.append((dataset, split, pair.name, role))
        plain.append(scenes.spectrum(np.asarray(image)))
        for view in _views(image):
          variants.append(scenes.spectrum(np.asarray(view)))
          owner.append(len(plain) - 1)
  plain, variants = np.stack(plain), np.stack(variants)
  seen = set()
  for number, spectrum in enumerate(variants):
    for other in np.flatnonzero(scenes.same_scene(spectrum[None], plain)):
      a, b = labels[owner[number]], labels[other]
      if a[3] != b[3] and (a, b) not in seen:
        seen.add((a, b))
        print('alike once mirrored or cropped:', a, b)
  print(f'{len(plain)} images, {len(seen)} alike once mirrored or cropped')


def _views(image):
  """The image mirrored, and cropped, both ways round."""
  width, height = image.size
  boxes = []
  for share in (0.95, 0.89, 0.8):
    for x in (0, 0.5, 1):
      left = x * width * (1 - share)
      boxes.append((left, 0, left + width * share, height))
      top = x * height * (1 - share)
      boxes.append((0, top, width, top + height * share))
    left, top = width * (1 - share) / 2, height * (1 - share) / 2
    boxes.append((left, top, width - left, height - top))
  views = [image, *(image.crop(tuple(map(int, box))) for box in boxes)]
  flip = Image.Transpose.FLIP_LEFT_RIGHT
  return views[1:] + [view.transpose(flip) for view in views]


def main():
  """Writes the JSON and prints the numbers."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('sources', nargs='+', metavar='NAME=FOLDER')
  parser.add_argument('--audit', required=True)
  parser.add_argument('--out', required=True)
  parser.add_argument('--seed', type=int, default=16)
  parser.add_argument('--check', action='store_true')
  args = parser.parse_args()
  sets = find_pairs(args.sources)
  result = hold_out(sets, findings.read_audit(args.audit), args.seed)
  content = {'note': RULE, 'seed': args.seed, **result}
  with open(args.out, 'w') as file:
    json.dump(content, file, indent=1)
    file.write('\n')
  for dataset, by_role in result.items():
    print(dataset, {role: len(names) for role, names in by_role.items()})
  if args.check:
    look_for_mirrored(sets, result)


if __name__ == '__main__':
  main()
