"""Pairs of a rainy and a clean image, and views of them."""

import dataclasses
from typing import NamedTuple, Protocol

import numpy as np

from mixdtp_jax.data.images import ImageFile, image_shape, read_image


class PairFiles(NamedTuple):
  """The files of a pair; a side that the data set lacks is None."""

  name: str
  rainy: ImageFile | None = None
  clean: ImageFile | None = None

  @property
  def images(self) -> dict[str, ImageFile]:
    """The images that there are, by side."""
    sides = {'rainy': self.rainy, 'clean': self.clean}
    return {side: image for side, image in sides.items() if image is not None}


class Pairs(Protocol):
  """Random access to {'name': str, 'rainy', 'clean': (H, W, 3) uint8}."""

  @property
  def name(self) -> str:
    """The name of the data set; '' if it has none."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict: ...

  def shape(self, index: int) -> tuple[int, int]:
    """Returns (H, W) without decoding an image."""


class FolderPairs:
  """Pairs of files, decoded when they are read.

  ValueError if a file is no image, or the sizes of a pair differ.
  """

  name = ''

  def __init__(self, files: list[PairFiles]):
    self._files = files
    self._shapes = []
    for pair in files:
      shapes = [image_shape(image) for image in pair.images.values()]
      check_same_size(pair.name, *shapes)
      self._shapes.append(shapes[0])

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> dict:
    pair = self._files[index]
    images = {side: read_image(file) for side, file in pair.images.items()}
    return {'name': pair.name} | images

  def shape(self, index: int) -> tuple[int, int]:
    """Returns (H, W), from the files' headers."""
    return self._shapes[index]


@dataclasses.dataclass(frozen=True)
class CutPairs:
  """The first pairs of others, cut to boxes: top, left, height, width."""

  name: str
  pairs: Pairs | list[dict]
  boxes: list[tuple[int, int, int, int]]

  def __len__(self) -> int:
    return len(self.boxes)

  def __getitem__(self, index: int) -> dict:
    pair, (top, left, height, width) = self.pairs[index], self.boxes[index]
    cut = np.s_[top : top + height, left : left + width]
    return pair | {side: pair[side][cut] for side in ('rainy', 'clean')}

  def shape(self, index: int) -> tuple[int, int]:
    """Returns (H, W) of the cut image."""
    return self.boxes[index][2:]


def cut_to_multiples(pairs: Pairs, multiple: int) -> CutPairs:
  """Cuts images at the bottom and right to multiples of some pixels.

  The MixDTPNet repository scores images that are cut to multiples of 32; 1
  keeps them whole. ValueError if an image is smaller.
  """
  boxes = []
  for index in range(len(pairs)):
    height, width = pairs.shape(index)
    if min(height, width) < multiple:
      raise ValueError(
        f'{pairs[index]["name"]} has {width}x{height} pixels, too few to cut '
        f'it to multiples of {multiple}: take a smaller multiple (1 keeps '
        'images whole), or remove the pair'
      )
    boxes.append((0, 0, height - height % multiple, width - width % multiple))
  return CutPairs(pairs.name, pairs, boxes)


def centre_crops(pairs: Pairs, *, count: int, size: int) -> CutPairs:
  """Decodes up to `count` first pairs, and cuts them to their centres.

  No side is longer than `size` pixels then; 0 keeps images whole.
  """
  boxes = []
  for index in range(min(count, len(pairs))):
    height, width = pairs.shape(index)
    tall, wide = (min(side, size or side) for side in (height, width))
    boxes.append(((height - tall) // 2, (width - wide) // 2, tall, wide))
  decoded = [pairs[index] for index in range(len(boxes))]
  return CutPairs(pairs.name, decoded, boxes)


def check_same_size(name: str, rainy: tuple, clean: tuple) -> None:
  """Raises ValueError if the two shapes of a pair differ."""
  if rainy[:2] != clean[:2]:
    sizes = ['x'.join(map(str, shape[1::-1])) for shape in (rainy, clean)]
    raise ValueError(
      f'{name}: the rainy image is {sizes[0]}, the clean one {sizes[1]} '
      'pixels; a pair needs equal sizes'
    )
