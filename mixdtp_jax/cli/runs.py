"""Compare training runs, finished or not.

  mixdtp runs runs/a runs/b --out compared

Runs that were evaluated on the same images are ordered by their PSNR. If some
differ in nothing but the seed, a second table compares variants, seed by seed,
with that of the first run.
"""

import argparse

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument(
    'workdirs',
    type=options.local,
    nargs='+',
    metavar='WORKDIR',
    help='folder of a training run',
  )
  parser.add_argument(
    '--out',
    type=options.out_folder,
    required=True,
    metavar='FOLDER',
    help='folder to write runs.json and runs.html into',
  )


def run(args: argparse.Namespace) -> None:
  """Compares the runs, prints a table and writes the files."""
  import jax

  from mixdtp_jax.tools.runs.runs import compare_runs

  # Accelerators may be busy with the very runs that are compared.
  jax.config.update('jax_platforms', 'cpu')
  compare_runs(args.workdirs, args.out)
