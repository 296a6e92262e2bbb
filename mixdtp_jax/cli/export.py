"""Export a network as an ONNX model or a StableHLO program.

  mixdtp export --format onnx
  mixdtp export --weights runs/mine --format stablehlo -o mine.stablehlo

The file holds the weights, takes pictures of any size, and runs without
mixdtp_jax: an ONNX model in ONNX Runtime, a StableHLO program in JAX alone.
"""

import argparse

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument(
    '--format',
    required=True,
    choices=('onnx', 'stablehlo'),
    help='what to write; onnx needs the package onnx',
  )
  options.add_weights(parser)
  parser.add_argument(
    '-o',
    '--output',
    metavar='FILE',
    help='file to write; must not exist (default: the name of the weights, '
    'with the format as ending)',
  )
  options.add_steps(parser)


def run(args: argparse.Namespace) -> None:
  """Exports the network and says what was written."""
  from mixdtp_jax.tools.export.command import export

  print(export(**options.settings(args)))
