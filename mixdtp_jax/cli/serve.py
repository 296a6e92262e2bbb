"""Serve a page in the browser that takes the rain out of pictures.

  mixdtp serve
  mixdtp serve --weights runs/mine --memory 4GB --port 9000

Pictures are restored on this machine, one at a time, and only this machine can
open the page unless --host says otherwise.
"""

import argparse
import os

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  text = (
    'address to serve at; 0.0.0.0 is all of this machine, and then everyone on '
    'the network can send pictures'
  )
  options.add(parser, 'host', '127.0.0.1', text)
  text = 'port to serve at; 0 takes a free one'
  options.add(parser, 'port', 8080, text, type=_port, metavar='PORT')
  text, number = 'refuse larger pictures', options.at_least_one
  options.add(parser, 'max-megapixels', 64, text, type=number, metavar='N')
  options.add_network(parser)


def _port(text: str) -> int:
  if not text.isdecimal() or int(text) > 65535:
    raise argparse.ArgumentTypeError(f'{text}: needs a number from 0 to 65535')
  return int(text)


def run(args: argparse.Namespace) -> None:
  """Serves until it is interrupted."""
  from mixdtp_jax.tools.serve.server import serve

  if args.scratch and not os.path.isdir(args.scratch):
    raise NotADirectoryError(f'--scratch {args.scratch}: not a folder')
  options.set_up_restoring()
  serve(**options.settings(args))
