"""Check a data set and write the copy that training reads.

  mixdtp prepare rain200h --source RAIN200H --data_dir prepared

A command that was stopped leaves nothing that is taken for a whole copy; the
same command starts again.
"""

import argparse
import contextlib
import ctypes
import signal
import sys

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser

_M_MMAP_THRESHOLD = -3  # in glibc's malloc.h


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument('name', help='data set, such as rain100l or pairs')
  parser.add_argument(
    '--source',
    type=options.local,
    default='',
    metavar='FOLDER',
    help='folder of the original files',
  )
  parser.add_argument(
    '--data_dir',
    type=options.local,
    required=True,
    metavar='FOLDER',
    help='folder of all prepared copies; the copy becomes FOLDER/NAME',
  )
  parser.add_argument(
    '--partial', action='store_true', help='accept a part of a set'
  )
  parser.add_argument(
    '--exclude',
    type=options.local,
    default='',
    metavar='FILE',
    help='leave out of training what mixdtp audit found; its JSON file',
  )
  parser.add_argument(
    '--again',
    action='store_true',
    help='write the copy also if there is one, such as after a change of the '
    'original files; the old copy is replaced when the new one is complete',
  )
  text = (
    'most MiB for images that are decoded at the same time; the whole command '
    'takes about 1,000 more'
  )
  options.add(
    parser, 'memory_mb', 4_096, text, metavar='N', type=options.at_least_one
  )


def run(args: argparse.Namespace) -> None:
  """Prepares the data set and prints the numbers of its pairs."""
  from mixdtp_jax.data.datasets import registry

  # glibc would keep, for each thread, what its largest image took.
  with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**23)
  # Unwinds, which removes what is half-written.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped by SIGTERM'))
  builder = registry.prepare(**options.settings(args))
  counts = ', '.join(
    f'{split} {info.num_examples:,}'
    for split, info in builder.info.splits.items()
  )
  print(f'{args.name}: {counts}, in {builder.data_path}')
