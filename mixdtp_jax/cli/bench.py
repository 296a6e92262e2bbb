"""The flags of python -m mixdtp_jax bench WHAT.

Each WHAT is bench_WHAT of the module of its name, which is imported when it is
asked for: it takes seconds, and other commands do without.
"""

import argparse
import functools
import importlib
import os

from mixdtp_jax.tools.bench.opponents import ALL


def add_to(commands: argparse._SubParsersAction) -> None:
  """Adds bench to the commands of a parser."""
  command = commands.add_parser('bench', help='measure speed')
  benchmarks = command.add_subparsers(required=True, metavar='WHAT')
  _add_data(benchmarks)
  _add_inference(benchmarks)
  _add_training(benchmarks)
  _add_profile(benchmarks)
  _add_start(benchmarks)
  _add_growth(benchmarks)


def _add_data(benchmarks) -> None:
  data = benchmarks.add_parser(
    'data', help='training crops a second, with and without the cache'
  )
  data.add_argument('--config', required=True, help='a file of configs/')
  data.add_argument(
    '--source', default='', help="in the place of the file's data.source"
  )
  data.add_argument(
    '--data_dir',
    default='',
    help='of its data.data_dir (without either: prepared for this once)',
  )
  data.add_argument(
    '--seconds',
    type=float,
    default=10,
    help='of measuring after an epoch, each with and without (default: 10)',
  )
  _add_out(data)
  data.set_defaults(run=functools.partial(_run, 'data'))


def _add_inference(benchmarks) -> None:
  inference = benchmarks.add_parser(
    'inference', help='restoring images, beside PyTorch'
  )
  inference.add_argument(
    '--size',
    default='256x256',
    help='WIDTHxHEIGHT of the images in pixels, or a side (default: 256x256)',
  )
  inference.add_argument(
    '--batch', default='1', help='images at once (default: 1)'
  )
  _add_network(inference)
  _add_opponents(inference)
  _add_out(inference)
  inference.set_defaults(run=functools.partial(_run, 'inference'))


def _add_training(benchmarks) -> None:
  training = benchmarks.add_parser(
    'training', help='an update: forward, loss, gradients, optimizer'
  )
  _add_crop(training)
  training.add_argument(
    '--batch',
    default='2',
    help='images of an update (default: 2); best: for JAX and each opponent '
    'the one at which it is fastest',
  )
  training.add_argument(
    '--most',
    type=int,
    default=1024,
    help='largest batch that --batch best tries (default: 1024)',
  )
  _add_network(training)
  _add_opponents(training)
  _add_out(training)
  training.set_defaults(run=functools.partial(_run, 'training'))


def _add_profile(benchmarks) -> None:
  profile = benchmarks.add_parser(
    'profile', help="where an update's time goes, and the machine's bounds"
  )
  _add_crop(profile)
  profile.add_argument(
    '--batch', default='2', help='images of an update (default: 2)'
  )
  _add_network(profile)
  _add_out(profile)
  profile.set_defaults(run=functools.partial(_run, 'profile'))


def _add_start(benchmarks) -> None:
  start = benchmarks.add_parser(
    'start', help='from train.py to the first completed update'
  )
  start.add_argument(
    '--config', help='a file of configs/ (default: configs/default.py)'
  )
  start.add_argument(
    '--repeats',
    type=int,
    default=1,
    help='starts without, and again with compiled programs (default: 1)',
  )
  _add_out(start)
  start.set_defaults(run=functools.partial(_run, 'start'))


def _add_growth(benchmarks) -> None:
  growth = benchmarks.add_parser(
    'growth', help='time and memory against pixels, batch and devices'
  )
  for name, default, text in (
    ('sizes', '64,128,256,512,1024', 'sides in pixels, of one image restored'),
    ('batches', '1,2,4', 'images restored and trained on at once'),
    ('devices', '1,2', 'that share an update'),
  ):
    growth.add_argument(
      f'--{name}', default=default, help=f'{text} (default: {default})'
    )
  _add_crop(growth)
  _add_network(growth)
  _add_out(growth)
  growth.add_argument('--plot', metavar='FILE', help='SVG file to write')
  growth.set_defaults(run=functools.partial(_run, 'growth'))


def _add_network(parser) -> None:
  parser.add_argument(
    '--config',
    help='a file of configs/ (default: configs/default.py); '
    '--config.KNOB=VALUE changes a knob',
  )
  parser.set_defaults(overrides=[])
  parser.add_argument(
    '--repeats', type=int, default=5, help='timed runs of each (default: 5)'
  )


def _add_opponents(parser) -> None:
  parser.add_argument(
    '--devices',
    type=int,
    default=1,
    help='that share the batch (default: 1; more with --opponents none)',
  )
  parser.add_argument(
    '--opponents',
    dest='against',
    default=ALL,
    help=f'forms of the PyTorch network, or none (default: {ALL})',
  )


def _add_crop(parser) -> None:
  parser.add_argument(
    '--crop', type=int, default=96, help='side in pixels (default: 96)'
  )


def _add_out(parser) -> None:
  parser.add_argument('--out', metavar='FILE', help='JSON file to write')


def _run(what: str, args: argparse.Namespace) -> None:
  # Before JAX starts, which would take most of a GPU's memory: PyTorch and
  # processes of their own need it too.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '.95')
  module = importlib.import_module(f'mixdtp_jax.tools.bench.{what}')
  settings = vars(args)
  del settings['run']
  getattr(module, f'bench_{what}')(**settings)
