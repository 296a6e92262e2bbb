"""Folders of image pairs: rainy and clean files matched by name.

Nothing is skipped: a file that does not fit is an error that names it.
"""

import re
import unicodedata
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

from mixdtp_jax.data.pairs import FolderPairs, PairFiles

Key = TypeVar('Key', bound=Hashable)

_LONGEST = 251  # bytes of a name before .png, on most file systems

# Accepted names of the two folders, rainy first.
FOLDER_NAMES = (
  ('rainy', 'clean'),
  ('input', 'target'),
  ('rain', 'norain'),
  ('in', 'gt'),
)


def open_folder(folder: str | Path) -> FolderPairs:
  """Opens the pairs of a folder; see `find_pairs`."""
  return FolderPairs(find_pairs(Path(folder)))


def find_pairs(folder: Path) -> list[PairFiles]:
  """Finds the pairs in rainy/ and clean/, or other FOLDER_NAMES, in order.

  Both files have the same stem. Or no pair does, and each rainy file's stem is
  that of its clean file, then _ or - and more: several rains of one scene.

  FileNotFoundError if `folder` lacks these two folders, ValueError if it has
  several such, or a file has no partner.
  """
  found = both_sides(folder)
  if len(found) == 1:
    rainy, clean = map(by_stem, found[0])
    if rainy.keys().isdisjoint(clean):
      return match(rainy, clean, lambda stem: _scene(stem, clean))
    return match(rainy, clean)
  wanted = ', '.join(f'{rainy}/ and {clean}/' for rainy, clean in FOLDER_NAMES)
  if found:
    raise ValueError(
      f'{folder} has {content(folder)}: keep exactly one of {wanted}'
    )
  raise FileNotFoundError(
    f'{folder} has {content(folder)}; expected one of {wanted}, with files of '
    'equal stems in both'
  )


def both_sides(folder: Path) -> list[tuple[Path, Path]]:
  """Returns those of FOLDER_NAMES that are in a folder."""
  sides = [(folder / rainy, folder / clean) for rainy, clean in FOLDER_NAMES]
  return [(r, c) for r, c in sides if r.is_dir() and c.is_dir()]


def _scene(stem: str, clean: Mapping[str, Path]) -> str:
  """Returns the longest clean stem that begins a rainy one, or ''."""
  ends = [found.start() for found in re.finditer('[_-]', stem)]
  return next((stem[:e] for e in reversed(ends) if stem[:e] in clean), '')


def by_stem(folder: Path) -> dict[str, Path]:
  """Returns the files of a folder by stem, except hidden ones.

  They are in natural order: 2 is before 10. Stems are in Unicode's normal form
  C. FileNotFoundError if there is no folder, ValueError if two files have one
  stem.
  """
  if not folder.is_dir():
    raise FileNotFoundError(
      f'{folder} is not a folder; {folder.parent} has {content(folder.parent)}'
    )
  files: dict[str, Path] = {}
  for path in sorted(folder.iterdir(), key=_natural):
    if path.name.startswith('.'):
      continue
    stem = unicodedata.normalize('NFC', path.stem)
    if stem in files:
      first, second = files[stem].name, path.name
      if unicodedata.normalize('NFC', first) == stem + path.suffix:
        first, second = ascii(first), ascii(second)  # they look the same
      raise ValueError(
        f'{folder}: {first} and {second} have one stem; keep one of them'
      )
    files[stem] = path
  return files


def match(
  rainy: Mapping[Key, Path],
  clean: Mapping[Key, Path],
  clean_key: Callable[[Key], Key] = lambda key: key,
) -> list[PairFiles]:
  """Matches files by key, in the order of `rainy`.

  `clean_key` makes a rainy file's key that of its clean file, which several may
  share. ValueError if a file has no partner, or there are no files.
  """
  partners = {key: clean_key(key) for key in rainy}
  wanted = set(partners.values())
  without_clean = [f for key, f in rainy.items() if partners[key] not in clean]
  without_rainy = [f for key, f in clean.items() if key not in wanted]
  problems = [
    f'without a {partner} image: {_some(paths)}'
    for partner, paths in (('clean', without_clean), ('rainy', without_rainy))
    if paths
  ]
  if problems:
    raise ValueError('; '.join(problems) + ' (add the partner or remove these)')
  if not rainy:
    raise ValueError('no image pairs: the rainy and clean folders are empty')
  return [
    PairFiles(pair_name(path), path, clean[partners[key]])
    for key, path in rainy.items()
  ]


def pair_name(path: Path) -> str:
  """Returns a file's stem; bytes that are not UTF-8 become escapes.

  ValueError if it is too long then for the name of a restored image.
  """
  name = path.stem.encode('utf-8', 'backslashreplace')
  if len(name) > _LONGEST:
    raise ValueError(
      f'{path}: its name is not UTF-8, and takes {len(name)} bytes when it is '
      f'written so, more than {_LONGEST}: give the file a shorter name'
    )
  return name.decode()


def content(folder: Path) -> str:
  """Describes the content of a folder, for an error."""
  if not folder.is_dir():
    return 'nothing (it is not a folder)'
  names = sorted(
    path.name + ('/' if path.is_dir() else '')
    for path in folder.iterdir()
    if not path.name.startswith('.')
  )
  return _some(names) if names else 'nothing in it'


def _natural(path: Path) -> tuple[list, str]:
  """Returns a key that sorts the numbers in names by value."""
  parts = re.split(r'(\d+)', path.name)
  return [int(p) if p.isdecimal() else p for p in parts], path.name


def _some(things: list, most: int = 10) -> str:
  rest = f' and {len(things) - most} more' if len(things) > most else ''
  return ', '.join(map(str, things[:most])) + rest
