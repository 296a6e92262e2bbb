"""Copies what held_out.json says into folders to prepare and to score.

python make_data.py --held_out held_out.json --audit audit.json --out FOLDER \
  rain100l=RAIN100L rain800=RAIN800 ddn=DDN

FOLDER/data/SET are training parts as published; data/synthetic has one clean
image of each training scene; data/pairs trains on the same images as rainy and
clean and tests on the pairs of rain100l/train to choose on. FOLDER/eval has
folders for `eval.py --folder`; in *_clean the rainy image is the clean one.
"""

import argparse
import json
import pathlib
import shutil

import hold_out

from mixdtp_jax.data import findings, images


def put(image, folder, stem):
  """Writes the bytes of a file as they are, and half a file as a PNG."""
  folder.mkdir(parents=True, exist_ok=True)
  suffix = image.suffix if isinstance(image, pathlib.Path) else '.png'
  (folder / f'{stem}{suffix}').write_bytes(images.encoded(image))


def copy_published(pair, source, target):
  """Copies a pair's files with their place below the source."""
  for image in (pair.rainy, pair.clean):
    path = image.path if isinstance(image, images.Half) else image
    place = target / path.relative_to(source)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)


def main():
  """Writes the folders, which must not exist."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('sources', nargs='+', metavar='NAME=FOLDER')
  parser.add_argument('--held_out', required=True)
  parser.add_argument('--audit', required=True)
  parser.add_argument('--out', required=True)
  args = parser.parse_args()
  with open(args.held_out) as file:
    held_out = json.load(file)
  sets = hold_out.find_pairs(args.sources)
  sources = dict(entry.split('=', 1) for entry in args.sources)
  scene_of = hold_out.group(sets, findings.read_audit(args.audit))
  data, scored = (pathlib.Path(args.out, part) for part in ('data', 'eval'))
  data.mkdir(parents=True)
  scored.mkdir(parents=True)
  shown = set()
  for name, splits in sets.items():
    pairs = {pair.name: pair for pair in splits['train']}
    for pair_name in held_out[name]['train']:
      pair = pairs[pair_name]
      copy_published(pair, pathlib.Path(sources[name]), data / name)
      scene = scene_of[findings.PairId(name, 'train', pair_name)]
      if scene not in shown:
        shown.add(scene)
        put(pair.clean, data / 'synthetic', f'{name}-{pair_name}')
        for side in ('rainy', 'clean'):
          put(pair.clean, data / 'pairs/train' / side, f'{name}-{pair_name}')
    for role in ('choose', 'score'):
      contents = set()
      for pair_name in held_out[name][role]:
        pair, folder = pairs[pair_name], scored / f'{name}_{role}'
        put(pair.rainy, folder / 'rainy', pair_name)
        put(pair.clean, folder / 'clean', pair_name)
        if (name, role) == ('rain100l', 'choose'):
          put(pair.rainy, data / 'pairs/test/rainy', pair_name)
          put(pair.clean, data / 'pairs/test/clean', pair_name)
        if (content := images.encoded(pair.clean)) not in contents:
          contents.add(content)
          for side in ('rainy', 'clean'):
            put(pair.clean, scored / f'{name}_{role}_clean' / side, pair_name)
    for split in set(splits) - {'train'}:
      contents = set()
      for pair in splits[split]:
        put(pair.rainy, scored / f'{name}_{split}/rainy', pair.name)
        put(pair.clean, scored / f'{name}_{split}/clean', pair.name)
        if (content := images.encoded(pair.clean)) not in contents:
          contents.add(content)
          for side in ('rainy', 'clean'):
            put(pair.clean, scored / f'{name}_{split}_clean' / side, pair.name)
  print(f'{len(shown)} training scenes')


if __name__ == '__main__':
  main()
