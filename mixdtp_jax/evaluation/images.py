"""The restored images of an evaluation, the first ones side by side."""

import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from mixdtp_jax.data.images import write_png
from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.evaluation.metrics import Images
from mixdtp_jax.restoration.sheets import GAP, side_by_side

_SHOWN = 3  # images of a comparison


def image_path(folder: str | os.PathLike, name: str) -> pathlib.Path:
  """Returns FOLDER/NAME.png; a name such as 'a/b' keeps its folders.

  ValueError if the name is empty or leads out of the folder.
  """
  parts = pathlib.PurePosixPath(name).parts
  if not parts or '..' in parts or parts[0] == '/':
    raise ValueError(
      f'image name {name!r} is not a path inside the output folder'
    )
  return pathlib.Path(folder, *parts[:-1], f'{parts[-1]}.png')


class FirstImages:
  """Rainy, restored and clean of the first images, side by side.

  `add` is the `save` of `evaluate`, for several threads. It also writes each
  restored image to FOLDER/images, if there is a folder.
  """

  def __init__(self, pairs: Pairs, folder: str | os.PathLike | None) -> None:
    """Reads the first pairs of those that will be evaluated."""
    first = [pairs[i] for i in range(min(_SHOWN, len(pairs)))]
    self._pairs = {pair['name']: pair for pair in first}
    self._pictures: dict[str, np.ndarray] = {}
    self._folder = folder

  def add(self, names: Sequence[str], restored: Images) -> None:
    """Adds restored images (B, H, W, 3) float in [0, 1]; nan becomes 0."""
    if self._folder is None and self._pairs.keys().isdisjoint(names):
      return  # and leaves them where they are
    images = np.nan_to_num(jax.device_get(restored))
    for name, image in zip(names, images, strict=True):
      if self._folder is not None:
        folder = os.path.join(self._folder, 'images')
        write_png(image, image_path(folder, name))
      if name in self._pairs:
        rainy, clean = (self._pairs[name][side] for side in ('rainy', 'clean'))
        panels = [(f'{name}: rainy', rainy), ('restored', image)]
        self._pictures[name] = side_by_side([*panels, ('clean', clean)])

  @property
  def image(self) -> np.ndarray:
    """The first images, at least one, one below the other: (H, W, 3) uint8."""
    pictures = [self._pictures[n] for n in self._pairs if n in self._pictures]
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate(
      [
        np.pad(
          picture,
          ((0, GAP), (0, width - picture.shape[1]), (0, 0)),
          constant_values=255,
        )
        for picture in pictures
      ]
    )
