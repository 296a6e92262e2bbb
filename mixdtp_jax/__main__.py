"""The commands: python -m mixdtp_jax COMMAND --help."""

import argparse
import pathlib
import sys

import jax
import numpy as np

from mixdtp_jax import report, weights
from mixdtp_jax.data import folders
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


def rain(photograph: str, target: str, seed: int) -> None:
  """Draws the rain of every preset on a photograph, in one labelled picture.

  Args:
    photograph: a PNG or JPEG file.
    target: the PNG file to write, a square of panels.
    seed: of the rain.

  Raises:
    OSError, ValueError: the photograph cannot be read.
  """
  # TensorFlow takes seconds to import, and the other commands do without.
  from mixdtp_jax.data.rain import add_rain
  from mixdtp_jax.data.rain_ranges import PRESETS

  clean = folders.read_image(pathlib.Path(photograph))
  panels = [
    (name, add_rain(clean.astype(np.float32) / 255, (seed, 0), ranges).numpy())
    for name, ranges in PRESETS.items()
  ]
  rows = [report.side_by_side(panels[i : i + 2]) for i in (0, 2)]
  report.write_png(np.concatenate(rows), target)
  print(f'{photograph} -> {target}: {", ".join(PRESETS)}')


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
    'rain', help='draw the rain of every preset on a photograph'
  )
  command.add_argument('photograph', help='a PNG or JPEG file')
  command.add_argument(
    '--to', required=True, metavar='TARGET', help='PNG file to write'
  )
  command.add_argument('--seed', type=int, default=0, help='of the rain')
  command.set_defaults(
    run=lambda args: rain(args.photograph, args.to, args.seed)
  )
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
