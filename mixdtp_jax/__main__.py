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
  _add_compare(commands)
  return parser


def _add_compare(commands) -> None:
  command = commands.add_parser(
    'compare', help='the network in JAX beside the same one in PyTorch'
  )
  network = command.add_mutually_exclusive_group(required=True)
  network.add_argument(
    '--weights', help="a run's workdir, a weights folder, or a .pth file"
  )
  network.add_argument(
    '--random', type=int, metavar='SEED', help='draw the weights instead'
  )
  for name, kind, default, text in (
    ('steps', int, None, 'refinement steps of a .pth (default: 3)'),
    ('folder', str, None, 'folder with rainy/ and clean/'),
    ('data', str, None, 'data set instead (default: photographs)'),
    ('data_dir', str, None, 'folder of its prepared copy'),
    ('source', str, None, 'folder of its files as published'),
    ('split', str, None, 'its split (default: test)'),
    ('num_images', int, 2, 'images to compare'),
    ('size', int, 128, 'cut images to this side in pixels; 0: whole'),
    ('config', str, None, "recipe (default: the run's, or configs/default.py)"),
    ('train_steps', int, 5, 'updates in both'),
    ('batch_size', int, 2, 'crops an update'),
    ('crop', int, 64, 'their side in pixels'),
    ('repeats', int, 5, 'timed runs of each'),
  ):
    shown = '' if default is None else f' (default: {default})'
    command.add_argument(
      f'--{name}', type=kind, default=default, help=text + shown
    )
  command.add_argument('--out', required=True, help='folder for the report')
  command.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> None:
  # PyTorch, which the other commands do without.
  from mixdtp_jax.compare.command import compare

  settings = vars(args)
  settings.pop('run')
  compare(**settings)


def main() -> None:
  """Runs a command; an expected failure is one line and exit status 1."""
  args = _parser().parse_args()
  try:
    args.run(args)
  except (OSError, ImportError, ValueError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
