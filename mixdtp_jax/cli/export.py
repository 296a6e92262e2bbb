"""Export a network as an ONNX model, a StableHLO program, or a web page.

  mixdtp export --format onnx
  mixdtp export --weights runs/mine --format stablehlo -o mine.stablehlo
  mixdtp export --format web --runtime node_modules/onnxruntime-web/dist

The file holds the weights, takes pictures of any size, and runs without
mixdtp_jax: an ONNX model in ONNX Runtime, a StableHLO program in JAX alone. The
format web is a folder for any web server, whose page restores pictures in the
browser and sends them nowhere.
"""

import argparse

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument(
    '--format',
    required=True,
    choices=('onnx', 'stablehlo', 'web'),
    help='what to write; onnx and web need the package onnx',
  )
  options.add_weights(parser)
  parser.add_argument(
    '-o',
    '--output',
    metavar='OUT',
    help='file to write, for web a folder; must not exist (default: the name '
    'of the weights, with the format as ending)',
  )
  options.add_steps(parser)
  parser.add_argument(
    '--runtime',
    type=options.local,
    metavar='DIR',
    help='for web: folder with the files of ONNX Runtime Web, such as '
    'node_modules/onnxruntime-web/dist after npm install onnxruntime-web',
  )


def run(args: argparse.Namespace) -> None:
  """Exports the network and says what was written."""
  from mixdtp_jax.tools.export.command import export

  print(export(**options.settings(args)))
