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
    help="the name of shipped weights, a run's workdir, a weights folder, a "
    '.safetensors file, or a .pth file',
  )
  parser.add_argument(
    '--steps',
    type=int,
    help='iterations of the progressive refinement, which a .pth file does not '
    'record (default: as published, 3 for MixDTPNet and 6 for PReNet)',
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
  parser.add_argument(
    '--crop_multiple',
    type=options.at_least_one,
    default=1,
    metavar='PIXELS',
    help='cut images from the top left to multiples of this; 1 keeps them '
    'whole, 32 is as published (default: %(default)s)',
  )
  parser.add_argument(
    '--out',
    metavar='FOLDER',
    help='folder to write tables and images into (default: only print)',
  )
  options.add_hosts(parser)


def _add_data(parser: Parser) -> None:
  parser.add_argument(
    '--data',
    metavar='NAME',
    help="data set, such as rain100l (default: the training run's, or pairs)",
  )
  parser.add_argument(
    '--source',
    metavar='FOLDER',
    help="folder of its original files (default: the training run's)",
  )
  parser.add_argument(
    '--data_dir',
    metavar='FOLDER',
    help="folder of prepared copies (default: the training run's)",
  )
  parser.add_argument(
    '--split', default='test', help='split of the set (default: %(default)s)'
  )
  parser.add_argument(
    '--folder', help='folder with rainy/ and clean/, instead of a data set'
  )


def run(args: argparse.Namespace) -> None:
  """Scores the images, prints a table and writes files."""
  import jax

  from mixdtp_jax.data.eval_batches import eval_batches
  from mixdtp_jax.data.pairs import CroppedPairs
  from mixdtp_jax.evaluation import images
  from mixdtp_jax.evaluation.score import evaluate
  from mixdtp_jax.models.factory import final_image, make_network
  from mixdtp_jax.restoration.whole_image import make_restore
  from mixdtp_jax.runtime import console, hosts
  from mixdtp_jax.weights.load import load_weights

  protocols = _protocols(args.protocols)
  options.join_hosts(args)
  pairs, source = _open_pairs(args)
  pairs = CroppedPairs(pairs, args.crop_multiple)
  cfg, params = load_weights(args.weights, steps=args.steps)
  first = images.FirstImages(pairs, args.out)
  rows = evaluate(
    make_restore(final_image(cfg), params, multiple=make_network(cfg).multiple),
    eval_batches(pairs, batch_size=args.batch_size or jax.device_count()),
    protocols,
    save=first.add if hosts.is_first() else None,
    progress=console.progress('Evaluating', len(pairs)),
  )
  if hosts.is_first():
    _report(args, cfg, source, rows, first.image)


def _report(args, cfg, source, rows, image) -> None:
  """Prints the scores among published ones, and writes the files."""
  from mixdtp_jax.evaluation import published, results
  from mixdtp_jax.evaluation.score import mean_row
  from mixdtp_jax.models.config import as_mapping
  from mixdtp_jax.runtime.tables import show

  # Published figures are of test splits.
  dataset = source.get('name', '') if args.split == 'test' else ''
  scores = mean_row(rows).restored
  ranks = published.rank(
    dataset, scores, published.run_name(args.crop_multiple)
  )
  show(results.score_table(rows), *published.tables(ranks))
  if args.out:
    context = {
      'weights': args.weights,
      'model': as_mapping(cfg),
      'data': source,
      'crop_multiple': args.crop_multiple,
    }
    for path in results.write_results(args.out, rows, image, context, ranks):
      print(path)
    print(os.path.join(args.out, 'images'))


def _protocols(names: list[str] | None) -> list[str]:
  from mixdtp_jax.evaluation.metrics import PROTOCOLS

  for name in names or ():
    if name not in PROTOCOLS:
      raise ValueError(
        f'--protocols: {name!r} is unknown; choose from {", ".join(PROTOCOLS)}'
      )
  return names or list(PROTOCOLS)


def _open_pairs(args):
  """Returns the pairs that the options name, and a record of these options."""
  from mixdtp_jax.data.matching import open_folder
  from mixdtp_jax.runtime import hosts

  if args.folder:
    if args.data or args.source or args.data_dir:
      raise ValueError(
        '--folder goes without --data, --source and --data_dir: drop either'
      )
    return open_folder(args.folder), {'folder': args.folder}
  name, source, data_dir = _data_set(args)

  from mixdtp_jax.data.datasets.registry import open_split

  pairs = hosts.in_turn(
    lambda: open_split(name, source=source, data_dir=data_dir, split=args.split)
  )
  return pairs, {'name': pairs.name, 'source': source, 'split': args.split}


def _data_set(args) -> tuple[str, str, str]:
  """Returns name, source and data_dir: the options', else the run's."""
  from mixdtp_jax.weights import shipped
  from mixdtp_jax.weights.run import load_run_config

  name, source, data_dir = args.data or 'pairs', '', ''
  try:
    run = load_run_config(args.weights).data
  except FileNotFoundError:  # weights of no run: the options must name all
    if args.data is None and not shipped.locate(args.weights).exists():
      raise
    run = None
  if run is not None and args.data in (None, run.name):
    name, source = run.name, run.source
    data_dir = run.data_dir or os.path.join(args.weights, 'data')
  source = source if args.source is None else args.source
  data_dir = data_dir if args.data_dir is None else args.data_dir
  if not data_dir:
    raise ValueError(
      f'--data={name} needs --data_dir, the folder of its prepared copy; or '
      'score a plain folder of pairs with --folder'
    )
  return name, source, data_dir
