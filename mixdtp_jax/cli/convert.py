"""Convert weights between a run, a weights folder, .safetensors and .pth.

  mixdtp convert mixdtp.pth --to weights
  mixdtp convert runs/mine --to mine.safetensors --dtype float16

The ending of the target says what is written.
"""

import argparse

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument('source', help=options.ANY_WEIGHTS)
  parser.add_argument(
    '--to',
    required=True,
    metavar='TARGET',
    help='file to write if it ends in .safetensors or .pth, else a weights '
    'folder; must not exist',
  )
  options.add_steps(parser)
  text = 'of the values in a .safetensors file'
  options.add(parser, 'dtype', 'float32', text, choices=('float32', 'float16'))


def run(args: argparse.Namespace) -> None:
  """Converts weights and says what was written."""
  import jax

  from mixdtp_jax.weights.convert import convert

  # Accelerators may be busy with the very run that is converted.
  jax.config.update('jax_platforms', 'cpu')
  print(convert(args.source, args.to, steps=args.steps, dtype=args.dtype))
