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
    dest='name', required=True, metavar='BENCHMARK'
  )
  for name, summary, add in (
    ('data', 'training crops a second, with and without the cache', _add_data),
    ('inference', 'restoring images, beside PyTorch', _add_inference),
    ('restoring', 'whole pictures in pieces, and at once', _add_restoring),
    ('training', 'an update of training, beside PyTorch', _add_training),
    ('profile', 'where the time goes, and what the machine can do', _add_crops),
    ('start', 'from mixdtp train to the first completed update', _add_repeats),
    ('growth', 'time and memory by pixels, batch and devices', _add_growth),
    ('device', 'tests, compare, plan, speed of a new device', _add_device),
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
  from mixdtp_jax.tools.bench import case

  case.run(**options.settings(args))


def _add_data(parser: Parser) -> None:
  text = 'seconds to measure after the first epoch, with the cache and without'
  options.add(parser, 'seconds', 10.0, text)


def _add_inference(parser: Parser) -> None:
  text = 'size of the images in pixels, or the side of square ones'
  options.add(parser, 'size', '256x256', text, metavar='WIDTHxHEIGHT')
  options.add(parser, 'batch', '1', 'images at once')
  _add_repeats(parser)
  _add_opponents(parser)


def _add_restoring(parser: Parser) -> None:
  sizes, text = '1920x1080,3840x2160,6000x4000', 'sizes of pictures in pixels'
  options.add(parser, 'sizes', sizes, text, metavar='WIDTHxHEIGHT,...')
  parser.add_argument(
    '--memory',
    metavar='SIZE',
    help='most memory of the process that restores in pieces, such as 2GB '
    '(default: half of the free memory)',
  )
  text = (
    'also restore N pictures of N sizes between 0.3 and 4 megapixels, and as '
    'many pixels in pictures of one size'
  )
  options.add(parser, 'pictures', 0, text, metavar='N')


def _add_training(parser: Parser) -> None:
  _add_crops(parser, ', or best: the fastest batch of each')
  text = 'smallest batch that --batch best tries'
  options.add(parser, 'least', 1, text, type=options.at_least_one)
  options.add(parser, 'most', 1024, 'largest batch that --batch best tries')
  _add_opponents(parser)


def _add_crops(parser: Parser, best: str = '') -> None:
  _add_crop(parser)
  options.add(parser, 'batch', '2', f'crops of an update{best}')
  _add_repeats(parser)


def _add_growth(parser: Parser) -> None:
  text = 'sides in pixels of one image to restore'
  options.add(parser, 'sizes', '64,128,256,512,1024', text)
  options.add(
    parser, 'batches', '1,2,4', 'numbers of images to restore and train on'
  )
  options.add(
    parser, 'devices', '1,2', 'numbers of devices that share an update'
  )
  _add_crop(parser)
  _add_repeats(parser)
  parser.add_argument(
    '--plot', type=options.out_file, metavar='FILE', help='SVG file to write'
  )


def _add_device(parser: Parser) -> None:
  text = 'platform of the devices: cuda, tpu or cpu'
  options.add(parser, 'platform', 'cuda', text, choices=['cuda', 'tpu', 'cpu'])
  options.add(parser, 'minutes', 8.0, 'time for all commands together')
  parser.add_argument(
    '--quick', action='store_true', help='small images, to try the command'
  )


def _add_crop(parser: Parser) -> None:
  options.add(parser, 'crop', 96, 'side of the crops in pixels')


def _add_repeats(parser: Parser) -> None:
  options.add(
    parser, 'repeats', 5, 'timed runs of each', type=options.at_least_one
  )


def _add_opponents(parser: Parser) -> None:
  text = 'devices that share the batch; more than one needs --opponents none'
  options.add(parser, 'devices', 1, text, type=options.at_least_one)
  text = 'variants of the PyTorch network, or none'
  options.add(parser, 'opponents', 'published,eager,compile', text)
