"""Tell what training needs on other devices, without these, or on this machine.

  mixdtp plan --config=rain200l --topology v5e:4x4

Compiles the training step and reports memory, exchanges, operations and time.
The exit status is 1 if it does not fit.
"""

import argparse
import sys

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  options.add_config(parser)
  parser.add_argument(
    '--topology',
    help='devices: a TPU slice as generation and chips along each axis, such '
    'as v5e:4x4 or v5p:4x4x4 (needs libtpu), or GPUs, such as h100:8 (needs '
    "JAX's CUDA plugin) (default: this machine)",
  )
  text = 'part of the peak rate that matrix products reach'
  options.add(parser, 'utilisation', 0.3, text)
  parser.add_argument(
    '--search',
    nargs='*',
    metavar='REMAT',
    help='also find the largest batch that fits, for these values of '
    'model.remat (without any: for all); each takes two to six compilations',
  )
  options.add_out(parser)


def run(args: argparse.Namespace) -> int:
  """Plans the training; the exit status is 1 if it does not fit."""
  from mixdtp_jax.tools.plan.run import plan

  if plan(**options.settings(args)):
    return 0
  print('error: it does not fit', file=sys.stderr)
  return 1
