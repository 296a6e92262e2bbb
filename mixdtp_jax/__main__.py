"""The commands: python -m mixdtp_jax COMMAND --help."""

import argparse
import pathlib
import sys

import jax

from mixdtp_jax import weights
from mixdtp_jax.interop import torch_weights


def convert(source: str, target: str, steps: int | None) -> None:
  """Converts weights between a run, a weights folder and PyTorch.

  Args:
    source: a run's workdir, a weights folder, or a .pth file.
    target: a .pth file where it ends so, else a weights folder; must not
      exist.
    steps: iterations of the progressive refinement; None is what the source
      says, or the published 3 for a .pth, which does not say.

  Raises:
    FileExistsError: the target exists.
    FileNotFoundError, ImportError, ValueError: see `weights.load_weights`.
  """
  path = pathlib.Path(target)
  if path.exists():
    raise FileExistsError(f'{path} exists already: choose another target')
  cfg, params = weights.load_weights(source, steps=steps)
  if path.suffix == '.pth':
    torch_weights.write_pth(torch_weights.to_torch(params, cfg), path)
  else:
    weights.save_weights(path, cfg, params)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  print(f'{source} -> {path}: {count:,} parameters of {cfg}')


def audit(sources: list[str], path: str) -> None:
  """Audits data sets; see `mixdtp_jax.data.audit.run`."""
  # TensorFlow takes seconds to import, which the other commands do without.
  from mixdtp_jax.data import audit

  audit.run(sources, path)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m mixdtp_jax')
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  command = commands.add_parser(
    'convert', help='convert weights to and from PyTorch'
  )
  command.add_argument(
    'source', help="a run's workdir, a weights folder, or a .pth file"
  )
  command.add_argument(
    '--to',
    required=True,
    metavar='TARGET',
    help='weights folder to write, or a file that ends in .pth',
  )
  command.add_argument(
    '--steps',
    type=int,
    help='iterations of the progressive refinement, which a .pth does not '
    'record (default: the published 3)',
  )
  command.set_defaults(
    run=lambda args: convert(args.source, args.to, args.steps)
  )
  command = commands.add_parser(
    'audit',
    help='look for what is wrong in data sets, and for leaks between them; '
    'findings are a report, no error: the exit status is 0',
  )
  command.add_argument(
    'sets',
    nargs='+',
    metavar='NAME=FOLDER',
    help='a data set and the folder of its files as published',
  )
  command.add_argument(
    '--json', default='audit.json', help='file to write (default: audit.json)'
  )
  command.set_defaults(run=lambda args: audit(args.sets, args.json))
  return parser


def main() -> None:
  """Runs a command; an expected failure is one line and exit status 1."""
  args = _parser().parse_args()
  try:
    args.run(args)
  except (OSError, ImportError, ValueError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
