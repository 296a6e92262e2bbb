"""The commands: python -m mixdtp_jax COMMAND --help."""

import argparse
import pathlib
import sys

import jax

from mixdtp_jax import weights
from mixdtp_jax.interop import torch_weights
from mixdtp_jax.runs import compare_runs


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


def compare(runs: list[str], out: str) -> None:
  """Sets training runs side by side, see `runs.compare_runs`."""
  # Accelerators may be busy with the very runs that are looked at.
  jax.config.update('jax_platforms', 'cpu')
  compare_runs(runs, out)


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
  command = commands.add_parser('compare', help='set runs side by side')
  command.add_argument(
    '--runs',
    nargs='+',
    required=True,
    metavar='WORKDIR',
    help='folders of training runs, finished or not',
  )
  command.add_argument(
    '--out', required=True, help='folder for runs.json and runs.html'
  )
  command.set_defaults(run=lambda args: compare(args.runs, args.out))
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
