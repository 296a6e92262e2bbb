"""Compare a network in JAX with the same network in PyTorch.

  mixdtp compare --weights runs/mine --out compared
  mixdtp compare --random 0 --config=demo --out compared

Both restore images and train on the same crops; their results should agree up
to rounding.
"""

import argparse

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  weights = parser.add_mutually_exclusive_group(required=True)
  weights.add_argument(
    '--weights',
    metavar='PATH',
    help=options.ANY_WEIGHTS,
  )
  weights.add_argument(
    '--random',
    type=int,
    metavar='SEED',
    help='draw random weights from this seed',
  )
  parser.add_argument(
    '--out',
    type=options.out_folder,
    required=True,
    metavar='FOLDER',
    help='folder to write compare.json and compare.html into',
  )
  options.add_config(parser, default="the run's, or default")
  options.add_steps(parser)
  _add_images(parser)
  training = parser.add_argument_group('training')
  for name, default, text in (
    ('train_steps', 5, 'updates'),
    ('batch_size', 2, 'crops of an update'),
    ('crop', 64, 'side of the crops in pixels'),
  ):
    options.add(training, name, default, text, type=options.at_least_one)


def _add_images(parser: Parser) -> None:
  images = parser.add_argument_group('images')
  for name, text in (
    ('folder', 'folder with rainy/ and clean/'),
    ('data_dir', 'folder of a prepared copy'),
    ('source', 'folder of its original files'),
  ):
    images.add_argument(
      f'--{name}', type=options.local, metavar='FOLDER', help=text
    )
  text = 'data set instead of a folder (default: photographs)'
  images.add_argument('--data', metavar='NAME', help=text)
  images.add_argument('--split', help='its split (default: test)')
  number = options.at_least_one
  options.add(images, 'num_images', 2, 'number of images', type=number)
  text = 'cut images to this side in pixels; 0 takes them whole'
  options.add(images, 'size', 128, text)


def run(args: argparse.Namespace) -> None:
  """Compares, prints tables and writes the files."""
  from mixdtp_jax.tools.compare.command import compare_frameworks

  compare_frameworks(**options.settings(args))
