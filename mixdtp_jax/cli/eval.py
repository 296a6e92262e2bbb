"""Score a network on images whose clean versions are known.

  mixdtp eval --weights=runs/mine --out=results
  mixdtp eval --weights=mixdtp.pth --folder=pairs --out=results

Without --data and --folder, the test images of the training run are scored.
"""

import argparse
import os

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument(
    '--weights',
    required=True,
    metavar='PATH',
    help=options.ANY_WEIGHTS,
  )
  options.add_steps(parser)
  parser.add_argument(
    '--step',
    type=checkpoint,
    metavar='UPDATE',
    help="the run's checkpoint of this update, or best (default: the newest)",
  )
  _add_data(parser)
  parser.add_argument(
    '--protocols',
    type=lambda text: text.split(','),
    metavar='NAME,...',
    help='protocols of PSNR and SSIM (default: all)',
  )
  parser.add_argument(
    '--batch_size',
    type=options.at_least_one,
    help='images of equal size at once (default: one for each device)',
  )
  options.add(
    parser,
    'crop_multiple',
    1,
    'cut images from the top left to multiples of this; 1 keeps them whole, 32 '
    'is as published',
    type=options.at_least_one,
    metavar='PIXELS',
  )
  parser.add_argument(
    '--out',
    type=options.out_folder,
    metavar='FOLDER',
    help='folder to write tables and images into (default: only print)',
  )
  options.add_hosts(parser)


def checkpoint(text: str) -> int | str:
  """Returns an update, or 'best'."""
  return text if text == 'best' else int(text)


def _add_data(parser: Parser) -> None:
  text = "data set, such as rain100l (default: the training run's, or pairs)"
  parser.add_argument('--data', metavar='NAME', help=text)
  for name, text in (
    ('source', "folder of its original files (default: the training run's)"),
    ('data_dir', "folder of prepared copies (default: the training run's)"),
    ('folder', 'folder with rainy/ and clean/, instead of a data set'),
  ):
    parser.add_argument(
      f'--{name}', type=options.local, metavar='FOLDER', help=text
    )
  options.add(parser, 'split', 'test', 'split of the set')


def run(args: argparse.Namespace) -> None:
  """Scores the images, prints a table and writes files."""
  import jax

  from mixdtp_jax.checkpoints.saving import read_best
  from mixdtp_jax.data.pairs import cut_to_multiples
  from mixdtp_jax.evaluation.metrics import PROTOCOLS
  from mixdtp_jax.evaluation.network import report, score_network
  from mixdtp_jax.models.config import as_mapping
  from mixdtp_jax.runtime import hosts
  from mixdtp_jax.weights import shipped
  from mixdtp_jax.weights.load import load_weights
  from mixdtp_jax.weights.run import load_run_config

  for name in args.protocols or ():
    if name not in PROTOCOLS:
      raise ValueError(
        f'--protocols: {name!r} is unknown; choose from {", ".join(PROTOCOLS)}'
      )
  options.join_hosts(args)
  if not (path := shipped.locate(args.weights)).exists():
    raise shipped.not_found(path)
  try:
    recipe = load_run_config(path)
  except FileNotFoundError:  # weights of no run
    recipe = {}
  pairs, source = _open_pairs(args, recipe.get('data'))
  cfg, params = load_weights(args.weights, steps=args.steps, update=args.step)
  rows, image = score_network(
    cfg,
    params,
    cut_to_multiples(pairs, args.crop_multiple),
    batch_size=args.batch_size or jax.device_count(),
    protocols=args.protocols or list(PROTOCOLS),
    folder=args.out,
    # Other kernels may need devices that are not here.
    kernels='xla' if recipe.get('kernels') == 'xla' else 'auto',
  )
  if not hosts.is_first():
    return
  best = read_best(path) if args.step else None
  if best and args.step not in ('best', best['update']):
    best = None
  paths = report(
    rows,
    image,
    args.out,
    # Published figures are of test splits.
    dataset=source.get('name', '') if args.split == 'test' else '',
    crop_multiple=args.crop_multiple,
    context={
      'weights': args.weights,
      'update': args.step,
      'best': best,
      'model': as_mapping(cfg),
      'data': source,
      'crop_multiple': args.crop_multiple,
    },
  )
  if paths:
    print(*paths, os.path.join(args.out, 'images'), sep='\n')


def _open_pairs(args, run):
  """Returns the pairs that the options name, and a record of these options."""
  from mixdtp_jax.data.matching import open_folder
  from mixdtp_jax.runtime import hosts

  if args.folder:
    if args.data or args.source or args.data_dir:
      raise ValueError(
        '--folder goes without --data, --source and --data_dir: drop either'
      )
    return open_folder(args.folder), {'folder': args.folder}
  if run is None or args.data not in (None, run['name']):  # no set of the run
    run = {'name': args.data or 'pairs', 'source': '', 'data_dir': ''}
  name = run['name']
  source = run['source'] if args.source is None else args.source
  data_dir = run['data_dir'] if args.data_dir is None else args.data_dir
  if not data_dir and args.data is None:
    raise ValueError(
      f'{args.weights} has no test images of its own: give --folder PAIRS, or '
      '--data NAME with --source and --data_dir'
    )
  if not data_dir:
    raise ValueError(
      f'--data={name} needs --data_dir, the folder of its prepared copy; or '
      'score a plain folder of pairs with --folder'
    )

  from mixdtp_jax.data.datasets.registry import open_split

  # Where the run found its files may be another machine's path.
  own = args.source is None and args.data_dir is None
  known = None if own and source else source
  pairs = hosts.in_turn(
    lambda: open_split(name, source=known, data_dir=data_dir, split=args.split)
  )
  return pairs, {'name': pairs.name, 'source': source, 'split': args.split}
