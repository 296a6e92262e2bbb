"""Measure speed.

  mixdtp bench training --config=demo --batch best

Every benchmark shows its options with mixdtp bench BENCHMARK --help.
"""

import argparse
import os

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the benchmarks and their options."""
  benchmarks = parser.add_subparsers(
    dest='benchmark', required=True, metavar='BENCHMARK'
  )
  for name, summary, add in (
    ('data', 'training crops a second, with and without the cache', _add_data),
    ('inference', 'restoring images, beside PyTorch', _add_inference),
    ('restoring', 'whole pictures in pieces, and at once', _add_restoring),
    ('training', 'an update of training, beside PyTorch', _add_training),
    ('profile', 'where the time goes, and what the machine can do', _add_crops),
    ('start', 'from mixdtp train to the first completed update', _add_repeats),
    ('growth', 'time and memory by pixels, batch and devices', _add_growth),
  ):
    command = benchmarks.add_parser(name, help=summary, description=summary)
    options.add_config(command, default='default')
    add(command)
    options.add_out(command)


def run(args: argparse.Namespace) -> None:
  """Runs a benchmark, prints its table and writes its file."""
  # Before JAX starts, which would take most of a GPU's memory: PyTorch and
  # child processes need it too.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '.95')
  settings = options.settings(args)
  match settings.pop('benchmark'):
    case 'data':
      from mixdtp_jax.tools.bench.data import bench_data as measure
    case 'inference':
      from mixdtp_jax.tools.bench.inference import bench_inference as measure
    case 'restoring':
      from mixdtp_jax.tools.bench.restoring import bench_restoring as measure
    case 'training':
      from mixdtp_jax.tools.bench.training import bench_training as measure
    case 'profile':
      from mixdtp_jax.tools.bench.profile import bench_profile as measure
    case 'start':
      from mixdtp_jax.tools.bench.start import bench_start as measure
    case 'growth':
      from mixdtp_jax.tools.bench.scaling import bench_growth as measure
  measure(**settings)


def _add_data(parser: Parser) -> None:
  parser.add_argument(
    '--seconds',
    type=float,
    default=10,
    help='seconds to measure after the first epoch, once with and once without '
    'the cache (default: %(default)s)',
  )


def _add_inference(parser: Parser) -> None:
  parser.add_argument(
    '--size',
    default='256x256',
    metavar='WIDTHxHEIGHT',
    help='size of the images in pixels, or the side of square ones (default: '
    '%(default)s)',
  )
  parser.add_argument(
    '--batch', default='1', help='images at once (default: %(default)s)'
  )
  _add_repeats(parser)
  _add_opponents(parser)


def _add_restoring(parser: Parser) -> None:
  parser.add_argument(
    '--sizes',
    default='1920x1080,3840x2160,6000x4000',
    metavar='WIDTHxHEIGHT,...',
    help='sizes of pictures in pixels (default: %(default)s)',
  )
  parser.add_argument(
    '--memory',
    metavar='SIZE',
    help='most memory of the process that restores in pieces, such as 2GB '
    '(default: half of what is free)',
  )
  parser.add_argument(
    '--pictures',
    type=int,
    default=0,
    metavar='N',
    help='also restore N pictures of N sizes between 0.3 and 4 megapixels, and '
    'as many pixels in pictures of one size (default: %(default)s)',
  )


def _add_training(parser: Parser) -> None:
  _add_crops(parser, ', or best: the fastest batch of each')
  parser.add_argument(
    '--most',
    type=int,
    default=1024,
    help='largest batch that --batch best tries (default: %(default)s)',
  )
  _add_opponents(parser)


def _add_crops(parser: Parser, best: str = '') -> None:
  _add_crop(parser)
  parser.add_argument(
    '--batch',
    default='2',
    help=f'crops of an update{best} (default: %(default)s)',
  )
  _add_repeats(parser)


def _add_growth(parser: Parser) -> None:
  for name, default, text in (
    ('sizes', '64,128,256,512,1024', 'sides in pixels of one image to restore'),
    ('batches', '1,2,4', 'numbers of images to restore and to train on'),
    ('devices', '1,2', 'numbers of devices that share an update'),
  ):
    parser.add_argument(
      f'--{name}', default=default, help=f'{text} (default: %(default)s)'
    )
  _add_crop(parser)
  _add_repeats(parser)
  parser.add_argument('--plot', metavar='FILE', help='SVG file to write')


def _add_crop(parser: Parser) -> None:
  parser.add_argument(
    '--crop',
    type=int,
    default=96,
    help='side of the crops in pixels (default: %(default)s)',
  )


def _add_repeats(parser: Parser) -> None:
  parser.add_argument(
    '--repeats',
    type=options.at_least_one,
    default=5,
    help='timed runs of each (default: %(default)s)',
  )


def _add_opponents(parser: Parser) -> None:
  parser.add_argument(
    '--devices',
    type=options.at_least_one,
    default=1,
    help='devices that share the batch (default: %(default)s); more than one '
    'needs --opponents none',
  )
  parser.add_argument(
    '--opponents',
    dest='against',
    default='published,eager,compile',
    help='variants of the PyTorch network, or none (default: %(default)s)',
  )
