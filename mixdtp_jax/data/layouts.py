"""Layouts of published data sets: how files are named, and pairs found.

Copies of the same set have different layouts. A data set lists the known ones,
and exactly one must be present.

A pattern is a path below a split's folder, without suffix. {i} and {k} stand
for numbers, {name} for any text. Fields of one name have one value in both
files of a pair, as in 'rainy_image/{i}_{k}' with 'ground_truth/{i}'.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mixdtp_jax.data import matching
from mixdtp_jax.data.images import Half
from mixdtp_jax.data.pairs import PairFiles


class Layout(Protocol):
  """A naming of the files of pairs; str() describes it for errors."""

  def patterns(self) -> tuple[str, ...]:
    """Returns the patterns of all files."""

  def pairs(self, folder: Path) -> Sequence[PairFiles]:
    """Returns the pairs below `folder`, or none if it has another layout.

    Raises:
      ValueError: it has this layout, but a file has no partner or another name.
    """


class TwoFiles(NamedTuple):
  """A layout with a rainy and a clean file; '' if a set has no such files."""

  rainy: str
  clean: str

  def __str__(self) -> str:
    """Returns the text for errors."""
    return ' with '.join(filter(None, self))

  def patterns(self) -> tuple[str, ...]:
    """See `Layout`."""
    return tuple(filter(None, self))

  def pairs(self, folder: Path) -> list[PairFiles]:
    """See `Layout`."""
    found = _matching(folder, self.patterns())
    if found is None:
      return []
    if len(found) == 1:
      side = 'rainy' if self.rainy else 'clean'
      none = PairFiles('', None, None)
      return [
        none._replace(name=path.stem, **{side: path})
        for path in found[0].values()
      ]
    shared = [
      number
      for number, field in enumerate(_fields(self.rainy))
      if field in _fields(self.clean)
    ]
    return matching.match(*found, lambda key: tuple(key[n] for n in shared))


class SideBySide(NamedTuple):
  """A layout with one file for both images of a pair."""

  file: str
  rainy: str  # the rainy half: 'left' or 'right'

  def __str__(self) -> str:
    """Returns the text for errors."""
    return f'{self.file} (both images side by side, {self.rainy} half rainy)'

  def patterns(self) -> tuple[str, ...]:
    """See `Layout`."""
    return (self.file,)

  def pairs(self, folder: Path) -> list[PairFiles]:
    """See `Layout`."""
    (found,) = _matching(folder, self.patterns()) or ({},)
    clean = {'left': 'right', 'right': 'left'}[self.rainy]
    return [
      PairFiles(path.stem, Half(path, self.rainy), Half(path, clean))
      for path in found.values()
    ]


class Split(NamedTuple):
  """A split of a published data set.

  Attributes:
    folders: possible names of its folder; '.' is the source itself, if that
      holds files.
    layouts: the known layouts.
    counts: numbers of pairs of its published versions.
  """

  folders: tuple[str, ...]
  layouts: tuple[Layout, ...]
  counts: tuple[int, ...]

  def places(self, source: Path) -> list[Path]:
    """Returns its folders that exist; the case of names matters."""
    if not source.is_dir():
      return []
    inside = sorted(source.iterdir())
    places = [p for p in inside if p.name in self.folders and p.is_dir()]
    if '.' in self.folders and any(path.is_file() for path in inside):
      places.append(source)
    return places


def find_pairs(source: Path, split: Split) -> Sequence[PairFiles]:
  """Finds the pairs of a split, in whichever known layout it has.

  Raises:
    FileNotFoundError: it has no known layout.
    ValueError: it has several, or a file does not fit.
  """
  places = split.places(source)
  found = {
    f'{place}/{layout}': pairs
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
    f'{_content(source, places, split)}; expected, in {source}/'
    f'{" or ".join(split.folders)}: {"; or ".join(map(str, split.layouts))}'
  )


def _matching(
  folder: Path, patterns: tuple[str, ...]
) -> list[dict[tuple, Path]] | None:
  """Returns for each pattern its files by the values of their fields.

  None if a pattern has no file, because the layout is another one.
  """
  places = {(folder / pattern).parent for pattern in patterns}
  if not all(place.is_dir() for place in places):
    return None
  files = {
    place: [f for f in matching.by_stem(place).values() if not f.is_dir()]
    for place in places
  }
  found = []
  for pattern in patterns:
    path = folder / pattern
    fullmatch = _expression(path.name).fullmatch
    matches = ((fullmatch(file.stem), file) for file in files[path.parent])
    found.append({match.groups(): file for match, file in matches if match})
  if not all(found):
    return None
  fitting = {file for side in found for file in side.values()}
  unmatched = [f for side in files.values() for f in side if f not in fitting]
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


def _fields(pattern: str) -> list[str]:
  return re.findall(r'\{(\w+)\}', pattern)


def _content(source: Path, places: list[Path], split: Split) -> str:
  """Describes what is there, down to the folders that should hold files."""
  below = {
    (place / pattern).parent
    for place in places
    for layout in split.layouts
    for pattern in layout.patterns()
  }
  shown = [source, *sorted({*places, *below} - {source})]
  return '; '.join(
    f'{path} has {matching.content(path)}'
    for path in shown
    if path == source or path.is_dir()
  )
