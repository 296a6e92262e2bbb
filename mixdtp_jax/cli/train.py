"""Train a network, or continue its training.

  mixdtp train --config=demo --workdir=runs/demo

The same command continues a run that was stopped. On several hosts, start the
command once on each host of a TPU slice, or under srun or mpirun.
"""

import argparse

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  options.add_config(parser)
  parser.add_argument(
    '--workdir',
    type=options.local,
    required=True,
    metavar='FOLDER',
    help='folder of the run: checkpoints, metrics and results',
  )
  parser.add_argument(
    '--check',
    action='store_true',
    help='check options, data, weights and the folder, and stop before the '
    'first update; prepares the data if necessary',
  )
  parser.add_argument(
    '--profile',
    type=options.at_least_one,
    metavar='N',
    help='trace N updates, after the first ten of this start, into '
    'FOLDER/plugins/profile, where TensorBoard finds them',
  )
  options.add_hosts(parser)


def run(args: argparse.Namespace) -> None:
  """Trains as the options say."""
  from mixdtp_jax.recipe.config_file import load_recipe

  recipe = load_recipe(args.config, args.overrides)

  from mixdtp_jax.training.loop import train_and_evaluate

  options.join_hosts(args)
  train_and_evaluate(
    recipe, args.workdir, check_only=args.check, profile=args.profile or 0
  )
