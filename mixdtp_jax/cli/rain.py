"""Draw the rain of every preset on a photograph.

  mixdtp rain street.jpg --to rain.png

This is the rain that networks are trained on where there are only clean images.
"""

import argparse
import pathlib

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument('photograph', help='PNG or JPEG file')
  parser.add_argument(
    '--to',
    type=options.out_file,
    required=True,
    metavar='TARGET',
    help='PNG file to write: a panel for each preset, with its name',
  )
  options.add(parser, 'seed', 0, 'number that the rain is drawn from')


def run(args: argparse.Namespace) -> None:
  """Draws the rain and writes the picture."""
  import numpy as np

  from mixdtp_jax.data import images
  from mixdtp_jax.data.rain.draw import add_rain
  from mixdtp_jax.recipe.rain_ranges import PRESETS
  from mixdtp_jax.restoration import sheets

  if not args.to.lower().endswith('.png'):
    raise ValueError(f'--to {args.to}: needs a name that ends with .png')
  clean = images.read_image(pathlib.Path(args.photograph))
  clean = clean.astype(np.float32) / 255
  panels = [
    (name, add_rain(clean, (args.seed, 0), ranges).numpy())
    for name, ranges in PRESETS.items()
  ]
  rows = [sheets.side_by_side(panels[i : i + 2]) for i in (0, 2)]
  images.write_png(np.concatenate(rows), args.to)
  print(f'{args.photograph} -> {args.to}: {", ".join(PRESETS)}')
