"""Folders of image pairs: finding, checking and reading them.

A pair is a rainy image and its clean one: RGB, of equal size, as PNG or JPEG
files. What does not fit is an error that names the file; nothing is skipped.
Images come out as (H, W, 3) uint8.
"""

import io
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

# Accepted names of the two folders, rainy first.
FOLDER_NAMES = (('rainy', 'clean'), ('input', 'target'), ('rain', 'norain'))


class Half(NamedTuple):
  """One half of a file that shows a pair side by side."""

  path: Path
  side: str  # 'left' or 'right'


# A file, the encoded bytes of a PNG or JPEG, or half a file.
ImageFile = Path | bytes | Half


class PairFiles(NamedTuple):
  """A pair; a side that the data set does not have is None."""

  name: str
  rainy: ImageFile | None
  clean: ImageFile | None


class Pairs(Protocol):
  """Random access to decoded pairs; what evaluation reads.

  Attributes:
    name: of the data set; '' where it has none.
  """

  name: str

  def __len__(self) -> int:
    """Number of pairs."""

  def __getitem__(self, index: int) -> dict:
    """{'name': str, 'rainy': (H, W, 3) uint8, 'clean': the same}."""

  def shape(self, index: int) -> tuple[int, int]:
    """(H, W), without decoding an image."""


class FolderPairs:
  """The pairs of `files`, decoded when they are asked for."""

  name = ''

  def __init__(self, files: list[PairFiles]):
    """Reads every header.

    Raises:
      ValueError: a file is no RGB image, or a pair's sizes differ.
    """
    self._files = files
    self._shapes = []
    for pair in files:
      shapes = image_shape(pair.rainy), image_shape(pair.clean)
      check_same_size(pair.name, *shapes)
      self._shapes.append(shapes[0])

  def __len__(self) -> int:
    """Number of pairs."""
    return len(self._files)

  def __getitem__(self, index: int) -> dict:
    """The decoded pair; see `Pairs`."""
    name, rainy, clean = self._files[index]
    return {
      'name': name,
      'rainy': read_image(rainy),
      'clean': read_image(clean),
    }

  def shape(self, index: int) -> tuple[int, int]:
    """(H, W), from the files' headers."""
    return self._shapes[index]


class CroppedPairs:
  """Pairs whose images are cut, from the top left, to multiples of a number.

  The MixDTPNet repository scores its images cut to multiples of 32.
  """

  def __init__(self, pairs: Pairs, multiple: int):
    """Looks at the shape of every image.

    Args:
      pairs: the whole images.
      multiple: of pixels, for both sides; 1 keeps the images whole.

    Raises:
      ValueError: `multiple` is less than 1, or an image is smaller.
    """
    if multiple < 1:
      raise ValueError(f'images cut to multiples of {multiple}: needs >= 1')
    self.name = pairs.name
    self._pairs = pairs
    self._shapes = []
    for index in range(len(pairs)):
      height, width = pairs.shape(index)
      if min(height, width) < multiple:
        raise ValueError(
          f'{pairs[index]["name"]} has {width}x{height} pixels, too few to cut '
          f'it to multiples of {multiple}: take a smaller multiple (1 keeps '
          'images whole), or remove the pair'
        )
      shape = height - height % multiple, width - width % multiple
      self._shapes.append(shape)

  def __len__(self) -> int:
    """Number of pairs."""
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict:
    """The decoded pair, cut; see `Pairs`."""
    pair, (height, width) = self._pairs[index], self._shapes[index]
    sides = {side: pair[side][:height, :width] for side in ('rainy', 'clean')}
    return pair | sides

  def shape(self, index: int) -> tuple[int, int]:
    """(H, W) of the cut image."""
    return self._shapes[index]


def open_folder(folder: str | Path) -> FolderPairs:
  """The pairs of a folder with rainy/ and clean/; see `find_pairs`.

  Raises:
    FileNotFoundError, ValueError: the layout or a file does not fit.
  """
  return FolderPairs(find_pairs(Path(folder)))


def find_pairs(folder: Path) -> list[PairFiles]:
  """Pairs files of equal stem in rainy/ and clean/, sorted by stem.

  The folders may also be named input/ and target/, or rain/ and norain/.

  Raises:
    FileNotFoundError: `folder` does not exist or has no such two folders.
    ValueError: it has several, or a file has no partner.
  """
  found = [
    names for names in FOLDER_NAMES if all((folder / n).is_dir() for n in names)
  ]
  if len(found) == 1:
    rainy, clean = found[0]
    return match(by_stem(folder / rainy), by_stem(folder / clean))
  wanted = ', '.join(f'{rainy}/ and {clean}/' for rainy, clean in FOLDER_NAMES)
  if found:
    raise ValueError(
      f'{folder} has {content(folder)}: keep exactly one of {wanted}'
    )
  raise FileNotFoundError(
    f'{folder} has {content(folder)}; expected one of {wanted}, with files of '
    'equal stems in both'
  )


def by_stem(folder: Path) -> dict[str, Path]:
  """The files of a folder by their names without suffix, hidden ones aside.

  In natural order: 2 is before 10.

  Raises:
    FileNotFoundError: `folder` does not exist.
    ValueError: two files have one stem.
  """
  if not folder.is_dir():
    raise FileNotFoundError(
      f'{folder} is not a folder; {folder.parent} has {content(folder.parent)}'
    )
  files: dict[str, Path] = {}
  for path in sorted(folder.iterdir(), key=_natural):
    if path.name.startswith('.'):
      continue
    if path.stem in files:
      raise ValueError(
        f'{folder}: {files[path.stem].name} and {path.name} have one stem; '
        'keep one of them'
      )
    files[path.stem] = path
  return files


def match(
  rainy: Mapping[Hashable, Path],
  clean: Mapping[Hashable, Path],
  clean_key: Callable[[Hashable], Hashable] = lambda key: key,
) -> list[PairFiles]:
  """Pairs the files of equal keys, in the order of `rainy`.

  Args:
    rainy: files by key.
    clean: the same.
    clean_key: a rainy file's key to its clean one's, which several may share.

  Raises:
    ValueError: a file has no partner, or there is no file at all.
  """
  partners = {key: clean_key(key) for key in rainy}
  wanted = set(partners.values())
  lonely = [path for key, path in rainy.items() if partners[key] not in clean]
  widowed = [path for key, path in clean.items() if key not in wanted]
  problems = [
    f'without a {partner} image: {_some(paths)}'
    for partner, paths in (('clean', lonely), ('rainy', widowed))
    if paths
  ]
  if problems:
    raise ValueError('; '.join(problems) + ' (add the partner or remove these)')
  if not rainy:
    raise ValueError('no image pairs: the rainy and clean folders are empty')
  return [
    PairFiles(path.stem, path, clean[partners[key]])
    for key, path in rainy.items()
  ]


def content(folder: Path) -> str:
  """What a folder holds, in a few words for an error."""
  if not folder.is_dir():
    return 'nothing (it is not a folder)'
  names = sorted(
    path.name + '/' * path.is_dir()
    for path in folder.iterdir()
    if not path.name.startswith('.')
  )
  return _some(names) if names else 'nothing in it'


def image_shape(image: ImageFile, label: str = '') -> tuple[int, int]:
  """(H, W) from the header.

  Args:
    image: file, encoded bytes, or half a file.
    label: names the image in errors, where it is no file.

  Raises:
    ValueError: not a PNG or JPEG, not RGB, or half of an odd width.
  """
  if isinstance(image, Half):
    height, width = image_shape(image.path)
    return height, _half_width(image.path, width)
  with _opened(image, label) as opened:
    return opened.height, opened.width


def read_image(image: ImageFile, label: str = '') -> np.ndarray:
  """Decodes to (H, W, 3) uint8; arguments and errors as `image_shape`'s.

  Raises:
    ValueError: as there, or the data is cut short or damaged.
  """
  if isinstance(image, Half):
    both = read_image(image.path)
    middle = _half_width(image.path, both.shape[1])
    return both[:, :middle] if image.side == 'left' else both[:, middle:]
  with _opened(image, label) as opened:
    return np.asarray(opened.convert('RGB'))


def encoded(image: ImageFile) -> bytes:
  """The bytes of a file as they are, and those of half a file as a PNG.

  Raises:
    OSError: the file cannot be read.
    ValueError: half a file, and it cannot be decoded.
  """
  if isinstance(image, Half):
    return encode_png(read_image(image))
  return image.read_bytes() if isinstance(image, Path) else image


def encode_png(image: np.ndarray) -> bytes:
  """(H, W, 3) uint8 as a PNG."""
  buffer = io.BytesIO()
  # On photographs the usual level 6 takes twice as long for the same size.
  Image.fromarray(image).save(buffer, format='PNG', compress_level=3)
  return buffer.getvalue()


def check_same_size(name: str, rainy: tuple, clean: tuple) -> None:
  """Raises ValueError where a pair's two shapes differ."""
  if rainy[:2] != clean[:2]:
    sizes = ['x'.join(map(str, shape[1::-1])) for shape in (rainy, clean)]
    raise ValueError(
      f'{name}: the rainy image is {sizes[0]}, the clean one {sizes[1]} '
      'pixels; a pair needs equal sizes'
    )


def _half_width(path: Path, width: int) -> int:
  if width % 2:
    raise ValueError(
      f'{path} is {width} pixels wide, which is odd: it does not hold two '
      'images side by side'
    )
  return width // 2


@contextmanager
def _opened(image: Path | bytes, label: str) -> Iterator[Image.Image]:
  label = str(image) if isinstance(image, Path) else label
  source = image if isinstance(image, Path) else io.BytesIO(image)
  try:
    with Image.open(source, formats=('PNG', 'JPEG')) as opened:
      # A palette is a way to store RGB; any other mode is another image.
      transparent = ' with transparency' * ('transparency' in opened.info)
      if opened.mode not in ('RGB', 'P') or transparent:
        raise ValueError(
          f'{label} is not RGB (its mode is {opened.mode}{transparent}): '
          'convert it to RGB'
        )
      yield opened
  # SyntaxError is what Pillow raises for a damaged PNG chunk.
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise ValueError(
      f'{label} cannot be decoded as PNG or JPEG ({error}): replace the file'
    ) from error


def _natural(path: Path) -> tuple[list, str]:
  """Sorts the numbers in a name by their value."""
  parts = re.split(r'(\d+)', path.name)
  return [int(p) if p.isdecimal() else p for p in parts], path.name


def _some(things: list, most: int = 10) -> str:
  rest = f' and {len(things) - most} more' if len(things) > most else ''
  return ', '.join(map(str, things[:most])) + rest
