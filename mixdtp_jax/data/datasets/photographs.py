"""Photographs that scikit-image ships, with drawn rain: needs no download.

Five scenes are no benchmark, but enough to see a network learn and to try every
command.
"""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np

from mixdtp_jax.data import images, pairs
from mixdtp_jax.data.rain import draw
from mixdtp_jax.recipe.rain_ranges import PRESETS

# Read as files of the package, because skimage.data may download.
TRAIN = ('astronaut.png', 'motorcycle_left.png', 'rocket.jpg')
TEST = ('chelsea.png', 'coffee.png')
TRAIN_VERSIONS = 16  # rainy versions of each photograph
TEST_VERSIONS = 2


def draw_pairs() -> dict[str, list[pairs.PairFiles]]:
  """Draws rain on three photographs for training and on two for testing."""
  return {
    'train': list(_draw(TRAIN, TRAIN_VERSIONS, seed=0)),
    'test': list(_draw(TEST, TEST_VERSIONS, seed=1)),
  }


def _draw(
  names: tuple[str, ...], versions: int, seed: int
) -> Iterator[pairs.PairFiles]:
  for number, name in enumerate(names):
    file = resources.files('skimage') / 'data' / name
    clean = images.read_image(file.read_bytes(), name)
    clean_png = images.encode_png(clean)
    for version in range(versions):
      rainy = draw.add_rain(
        clean.astype(np.float32) / 255,
        (seed, number * versions + version),
        PRESETS['light'],
      )
      yield pairs.PairFiles(
        f'{Path(name).stem}-{version + 1:02d}',
        images.encode_png(np.round(rainy.numpy() * 255).astype(np.uint8)),
        clean_png,
      )
