"""Options that several commands have."""

import argparse
import logging
import os
import pathlib
import signal
import sys
import warnings
from typing import Any

from mixdtp_jax.cli.parser import Parser
from mixdtp_jax.runtime import console
from mixdtp_jax.runtime.files import is_writable, local_path
from mixdtp_jax.runtime.sizes import parse_bytes

ANY_WEIGHTS = (
  'name of shipped weights, .safetensors or .pth file, weights folder, or '
  'workdir of a training run'
)


def add(
  parser: argparse._ActionsContainer,
  name: str,
  default: Any,
  text: str,
  **kwargs: Any,
) -> None:
  """Adds --NAME of the type of its default, with which its help ends."""
  kwargs = {'type': type(default), 'default': default} | kwargs
  parser.add_argument(
    f'--{name}', help=f'{text} (default: %(default)s)', **kwargs
  )


def add_config(parser: Parser, default: str = '') -> None:
  """Adds --config and --config.OPTION=VALUE.

  `default` names the recipe that the command takes without --config, for the
  help text; '' if it needs --config.
  """
  parser.add_argument(
    '--config',
    required=not default,
    metavar='RECIPE',
    help='name of a recipe, such as rain200l, or path of a Python file; '
    'RECIPE:NAME passes NAME on to it. --config.OPTION=VALUE changes one of '
    'its options, such as --config.batch_size=8'
    + (f' (default: {default})' if default else ''),
  )
  parser.takes_config = True


def add_network(parser: Parser) -> None:
  """Adds the weights that restore, and the limits of the memory."""
  group = parser.add_argument_group('network and memory')
  add_weights(group)
  group.add_argument(
    '--memory',
    type=_bytes,
    metavar='SIZE',
    help='most memory that the program may use, such as 2GB (default: half of '
    'what is free); the result does not depend on it',
  )
  group.add_argument(
    '--scratch',
    type=local,
    metavar='DIR',
    help='folder for what does not fit into the memory (default: TMPDIR if '
    'that is set, or the cache folder of the user)',
  )
  text = (
    'numbers that the network computes with; bfloat16 is faster on GPUs and '
    'TPUs, and less exact'
  )
  add(group, 'dtype', 'float32', text, choices=('float32', 'bfloat16'))


def add_weights(parser: argparse._ActionsContainer) -> None:
  """Adds --weights, by default the shipped ones, to a parser or a group."""
  add(parser, 'weights', 'general', ANY_WEIGHTS)


def add_steps(parser: Parser) -> None:
  """Adds --steps, the number that files of PyTorch do not record."""
  parser.add_argument(
    '--steps',
    type=int,
    help='iterations of the progressive refinement, which a .pth file does not '
    'record (default: as published, 3 for MixDTPNet and 6 for PReNet)',
  )


def _bytes(text: str) -> int:
  try:
    return parse_bytes(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def set_up_restoring() -> None:
  """Prepares a program that restores pictures, and stops well at SIGTERM."""
  from PIL import Image

  # The reader limits sizes by itself, and names what is damaged.
  Image.MAX_IMAGE_PIXELS = None
  warnings.filterwarnings('ignore', module='PIL')
  logging.getLogger('PIL').setLevel(logging.CRITICAL)
  # Unwinds, which removes what is half-written.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def load_restorer(args: argparse.Namespace):
  """Prepares the program, and loads the network that `add_network` chose."""
  import mixdtp_jax

  set_up_restoring()
  console.show('loading the network')
  return mixdtp_jax.load(
    args.weights, memory=args.memory, scratch=args.scratch, dtype=args.dtype
  )


def settings(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the values of a command's own options, by name."""
  return {k: v for k, v in vars(args).items() if k not in ('command', 'run')}


def add_hosts(parser: Parser) -> None:
  """Adds the options that say which process of several this one is."""
  hosts = parser.add_argument_group(
    'several processes', 'A TPU slice, srun and mpirun need none of these.'
  )
  for name, kind, metavar, text in (
    ('coordinator', str, 'HOST:PORT', 'address of process 0'),
    ('num_processes', int, 'N', 'number of processes'),
    ('process_id', int, 'N', 'number of this process, from 0 on'),
  ):
    hosts.add_argument(f'--{name}', type=kind, metavar=metavar, help=text)


def join_hosts(args: argparse.Namespace) -> None:
  """Joins the other processes; from then on, only the first one tells much."""
  from mixdtp_jax.runtime import hosts

  with console.waiting('Waiting for the other processes'):
    hosts.initialize(args.coordinator, args.num_processes, args.process_id)
  console.set_up_logging(first=hosts.is_first())


def add_out(parser: Parser) -> None:
  """Adds --out, a JSON file."""
  parser.add_argument(
    '--out', type=out_file, metavar='FILE', help='JSON file to write'
  )


def local(text: str) -> str:
  """Returns a path with ~ expanded, and refuses URLs."""
  try:
    return local_path(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def out_folder(text: str) -> str:
  """Returns a path as `local` does, of a folder that can be written."""
  path = local(text)
  if not is_writable(pathlib.Path(path)):
    raise argparse.ArgumentTypeError(
      f'{path}: nothing can be written there; choose another'
    )
  return path


def out_file(text: str) -> str:
  """Returns a path as `local` does, of a file that can be written."""
  path = local(text)
  if os.path.isdir(path):
    raise argparse.ArgumentTypeError(f'{path} is a folder: name a file')
  out_folder(os.path.dirname(path) or os.curdir)
  return path


def at_least_one(text: str) -> int:
  """Returns the number of an option that needs 1 or more."""
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text}: needs at least 1')
  return int(text)
