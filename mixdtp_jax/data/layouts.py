"""Layouts of published data sets: how files are named, and pairs found.

Copies of the same set have different layouts; exactly one known layout must be
present.

A pattern is a path below a split's folder, without suffix. {i} and {k} stand
for numbers, {name} for any text. Fields of one name have one value in both
files of a pair, as in 'rainy_image/{i}_{k}' with 'ground_truth/{i}'.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mixdtp_jax.data import matching
from mixdtp_jax.data.images import Half
from mixdtp_jax.data.pairs import PairFiles

_SHOWN = 10  # folders whose content an error shows


class Layout(NamedTuple):
  """A naming of the files of pairs.

  `pairs` finds the pairs in a split's folder: none if it has another layout,
  ValueError if a file has no partner or another name.
  """

  text: str  # describes it, for errors
  pairs: Callable[[Path], Sequence[PairFiles]]


def two_files(rainy: str, clean: str) -> Layout:
  """Returns the layout of a rainy and a clean file, each by its pattern."""
  fields = [re.findall(r'\{(\w+)\}', pattern) for pattern in (rainy, clean)]
  shared = [n for n, field in enumerate(fields[0]) if field in fields[1]]

  def pairs(folder: Path) -> list[PairFiles]:
    found = _matching(folder, (rainy, clean))
    if not found:
      return []
    first, second = found
    return matching.match(
      first, second, lambda key: tuple(key[n] for n in shared)
    )

  return Layout(f'{rainy} with {clean}', pairs)


def side_by_side(pattern: str, *, rainy: str) -> Layout:
  """Returns the layout of one file for a pair, of which one half is rainy."""
  clean = {'left': 'right', 'right': 'left'}[rainy]

  def pairs(folder: Path) -> list[PairFiles]:
    return [
      PairFiles(matching.pair_name(path), Half(path, rainy), Half(path, clean))
      for found in _matching(folder, (pattern,))
      for path in found.values()
    ]

  text = f'{pattern} (both images side by side, {rainy} half rainy)'
  return Layout(text, pairs)


def one_side(side: str) -> Layout:
  """Returns the layout of a folder of only 'rainy' or only 'clean' images."""

  def pairs(folder: Path) -> list[PairFiles]:
    return [
      PairFiles(matching.pair_name(path), **{side: path})
      for path in _files(folder).values()
    ]

  return Layout(f'{side} images', pairs)


def _equal_names(folder: Path) -> list[PairFiles]:
  for sides in matching.both_sides(folder):
    rainy, clean = map(matching.by_stem, sides)
    if not rainy.keys().isdisjoint(clean):
      return matching.match(rainy, clean)
  return []


_FOLDERS = ', '.join(map(' with '.join, matching.FOLDER_NAMES))
# How people rearrange a set.
EQUAL_NAMES = Layout(f'{_FOLDERS} (equal names)', _equal_names)
# A user's own: a scene may have several rains, and no other layout is possible.
OWN_PAIRS = Layout(_FOLDERS, matching.find_pairs)


class Split(NamedTuple):
  """A split of a data set.

  `folders` are possible names of its folder; '.' is the source itself, if that
  holds files.
  """

  folders: tuple[str, ...]
  layouts: tuple[Layout, ...]
  counts: tuple[int, ...] = ()  # of the pairs of its published versions
  optional: bool = False  # the set is complete without it

  def places(self, source: Path) -> list[Path]:
    """Returns its folders that exist; names in their case come first."""
    if not source.is_dir():
      return []
    inside = sorted(source.iterdir())
    places = [p for p in inside if p.name in self.folders and p.is_dir()]
    if not places:  # where case does not count, train/ may be Train/
      named = (source / name for name in self.folders if name != '.')
      places = [path for path in named if path.is_dir()][:1]
    if '.' in self.folders and any(path.is_file() for path in inside):
      places.append(source)
    return places


def find_pairs(source: Path, split: Split) -> Sequence[PairFiles]:
  """Finds the pairs of a split, in whichever known layout it has.

  FileNotFoundError if it has none, ValueError if it has several, or a file does
  not fit.
  """
  places = split.places(source)
  found = {
    f'{place}/{layout.text}': pairs
    for place in places
    for layout in split.layouts
    if (pairs := layout.pairs(place))
  }
  if len(found) == 1:
    return found.popitem()[1]
  if found:
    raise ValueError(
      f'{source} has pairs in several layouts: {"; ".join(found)}: keep one'
    )
  raise FileNotFoundError(
    f'{_content(source, places)}; expected, in {source}/'
    f'{" or ".join(split.folders)}: '
    f'{"; or ".join(layout.text for layout in split.layouts)}'
  )


def _files(folder: Path) -> dict[str, Path]:
  found = matching.by_stem(folder).items()
  return {stem: path for stem, path in found if not path.is_dir()}


def _matching(
  folder: Path, patterns: tuple[str, ...]
) -> list[dict[tuple, Path]]:
  """Returns for each pattern its files by the values of their fields.

  Nothing if a pattern has no file: the layout is another one.
  """
  places = {(folder / pattern).parent for pattern in patterns}
  if not all(place.is_dir() for place in places):
    return []
  files = {place: _files(place) for place in places}
  found = []
  for pattern in patterns:
    path = folder / pattern
    fullmatch = _expression(path.name).fullmatch
    named = ((fullmatch(s), file) for s, file in files[path.parent].items())
    found.append({match.groups(): file for match, file in named if match})
  if not all(found):
    return []
  fitting = {file for side in found for file in side.values()}
  unmatched = [
    f for side in files.values() for f in side.values() if f not in fitting
  ]
  if unmatched:
    raise ValueError(
      f'{len(unmatched)} files fit no name of {" and ".join(patterns)}, the '
      f'first is {unmatched[0]}: rename or remove them'
    )
  return found


def _expression(pattern: str) -> re.Pattern:
  """Returns an expression for a pattern's last part, a group per field."""
  parts = re.split(r'\{(\w+)\}', pattern)
  parts[::2] = map(re.escape, parts[::2])
  parts[1::2] = ['(.+)' if p == 'name' else r'(\d+)' for p in parts[1::2]]
  return re.compile(''.join(parts))


def _content(source: Path, places: list[Path]) -> str:
  """Describes what is there, down to the folders that should hold files."""
  below = [
    path
    for place in places
    for path in sorted(place.iterdir())
    if path.is_dir() and not path.name.startswith('.')
  ]
  shown = dict.fromkeys([source, *places, *below])
  return '; '.join(
    f'{path} has {matching.content(path)}'
    for path in itertools.islice(shown, _SHOWN)
  )
