"""How the files of a published data set are named, and finding its pairs.

The same set goes round in several layouts. A data set lists those that are
known; exactly one of them has to be there.

A pattern is a path below a split's folder, without suffix. In it {i} and {k}
are numbers and {name} is any text, and fields of one name have one value in
both files of a pair: 'rainy_image/{i}_{k}' with 'ground_truth/{i}'.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mixdtp_jax.data import matching
from mixdtp_jax.data.images import Half
from mixdtp_jax.data.pairs import PairFiles


class Layout(Protocol):
  """A way to name the files of pairs; str() describes it."""

  def patterns(self) -> tuple[str, ...]:
    """Of every file."""

  def pairs(self, folder: Path) -> Sequence[PairFiles]:
    """The pairs below `folder`; none where the layout is another one.

    Raises:
      ValueError: it is this one, and a file has no partner or another name.
    """


class TwoFiles(NamedTuple):
  """A rainy file and a clean one, by pattern; '' where a set has no such."""

  rainy: str
  clean: str

  def __str__(self) -> str:
    """As errors show it."""
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
  """One file a pair, by pattern, and which half of it is rainy."""

  file: str
  rainy: str  # 'left' or 'right'

  def __str__(self) -> str:
    """As errors show it."""
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
  """A split of a data set as published.

  Attributes:
    folders: names that its folder goes by; '.' is the source itself, where
      that holds files.
    layouts: those that are known.
    counts: the numbers of pairs of its published versions.
  """

  folders: tuple[str, ...]
  layouts: tuple[Layout, ...]
  counts: tuple[int, ...]

  def places(self, source: Path) -> list[Path]:
    """Those of its folders that are there, in the case as written."""
    if not source.is_dir():
      return []
    inside = sorted(source.iterdir())
    places = [p for p in inside if p.name in self.folders and p.is_dir()]
    if '.' in self.folders and any(path.is_file() for path in inside):
      places.append(source)
    return places


def find_pairs(source: Path, split: Split) -> Sequence[PairFiles]:
  """The pairs of a split, in the layout in which they are there.

  Raises:
    FileNotFoundError: no known layout is there.
    ValueError: several are, or a file of it does not fit.
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
  """For each pattern its files by their fields' values, or None.

  None where a pattern has no file: then this is not the layout.
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
  strangers = [f for side in files.values() for f in side if f not in fitting]
  if strangers:
    raise ValueError(
      f'{len(strangers)} files fit no name of {" and ".join(patterns)}, the '
      f'first is {strangers[0]}: rename or remove them'
    )
  return found


def _expression(pattern: str) -> re.Pattern:
  """What a pattern's last part matches, a group for each field."""
  parts = re.split(r'\{(\w+)\}', pattern)
  parts[::2] = map(re.escape, parts[::2])
  parts[1::2] = ['(.+)' if p == 'name' else r'(\d+)' for p in parts[1::2]]
  return re.compile(''.join(parts))


def _fields(pattern: str) -> list[str]:
  return re.findall(r'\{(\w+)\}', pattern)


def _content(source: Path, places: list[Path], split: Split) -> str:
  """What is there, down to the folders in which files were expected."""
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
