"""Draws rain of each preset on clean images of held-out scenes, for eval.

  python examples/general/draw_rain.py --eval general/eval --out general/eval

makes drawn_light, drawn_heavy, drawn_drops and drawn_mixed, each with rainy/
and clean/ of up to --count images: those of the pairs to score, then those of
the pairs to choose on, each image once.
"""

import argparse
import pathlib
import shutil

import numpy as np

from mixdtp_jax.data import images
from mixdtp_jax.data.rain import draw
from mixdtp_jax.recipe.rain_ranges import PRESETS

SETS = ('rain800_score', 'ddn_score', 'rain800_choose', 'ddn_choose')


def clean_images(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
  """Returns the paths of clean images, each content once."""
  found = {}
  for name in SETS:
    for path in sorted((folder / name / 'clean').iterdir()):
      found.setdefault(path.read_bytes(), path)
  return list(found.values())[:count]


def main() -> None:
  """Reads the options and writes the folders."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--eval', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--count', type=int, default=100)
  options = parser.parse_args()
  chosen = clean_images(options.eval, options.count)
  for number, (preset, ranges) in enumerate(PRESETS.items()):
    folder = options.out / f'drawn_{preset}'
    for kind in ('rainy', 'clean'):
      (folder / kind).mkdir(parents=True)
    for index, path in enumerate(chosen):
      name = f'{path.parents[1].name}-{path.stem}'
      shutil.copy(path, folder / 'clean' / f'{name}{path.suffix}')
      clean = images.read_image(path).astype(np.float32) / 255
      rainy = draw.add_rain(clean, (number, index), ranges).numpy()
      images.write_png(
        np.round(rainy * 255).astype(np.uint8), folder / 'rainy' / f'{name}.png'
      )


if __name__ == '__main__':
  main()
