"""The commands: python -m mixdtp_jax COMMAND --help."""

from mixdtp_jax.runtime import huge_pages

if __name__ == '__main__':
  huge_pages.use_huge_pages()  # before what takes time to import

import argparse
import pathlib
import signal
import sys

import jax
import numpy as np

from mixdtp_jax.cli import bench as bench
from mixdtp_jax.data import images
from mixdtp_jax.restoration import sheets
from mixdtp_jax.runtime import console
from mixdtp_jax.tools.runs.runs import compare_runs
from mixdtp_jax.weights import folder, load, pth


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
  cfg, params = load.load_weights(source, steps=steps)
  if path.suffix == '.pth':
    pth.write_pth(pth.to_torch(params, cfg), path)
  else:
    folder.save_weights(path, cfg, params)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  print(f'{source} -> {path}: {count:,} parameters of {cfg}')


def prepare(
  name: str, source: str, data_dir: str, partial: bool, exclude: str
) -> None:
  """Checks a data set and writes its prepared copy; see `datasets.prepare`.

  What was made by a run that was stopped is made again.

  Args:
    name: of the data set.
    source: the folder of the files as published.
    data_dir: the folder of prepared copies.
    partial: take what is there of a published set, not only all of it.
    exclude: an audit's JSON file, whose findings are left out; '' for none.
  """
  # TensorFlow takes seconds to import, which the other commands do without.
  from mixdtp_jax.data.datasets import registry

  console.set_up_logging()
  # Unwinds, which removes what is half-written.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped'))
  builder = registry.prepare(
    name, source=source, data_dir=data_dir, partial=partial, exclude=exclude
  )
  counts = ', '.join(
    f'{split} {info.num_examples:,}'
    for split, info in builder.info.splits.items()
  )
  print(f'{name}: {counts}, in {builder.data_path}')


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
  from mixdtp_jax.data.rain.draw import add_rain
  from mixdtp_jax.recipe.rain_ranges import PRESETS

  clean = images.read_image(pathlib.Path(photograph))
  panels = [
    (name, add_rain(clean.astype(np.float32) / 255, (seed, 0), ranges).numpy())
    for name, ranges in PRESETS.items()
  ]
  rows = [sheets.side_by_side(panels[i : i + 2]) for i in (0, 2)]
  images.write_png(np.concatenate(rows), target)
  print(f'{photograph} -> {target}: {", ".join(PRESETS)}')


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m mixdtp_jax')
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  audit = commands.add_parser(
    'convert', help='convert weights to and from PyTorch'
  )
  audit.add_argument(
    'source', help="a run's workdir, a weights folder, or a .pth file"
  )
  audit.add_argument(
    '--to',
    required=True,
    metavar='TARGET',
    help='weights folder to write, or a file that ends in .pth',
  )
  audit.add_argument(
    '--steps',
    type=int,
    help='iterations of the progressive refinement, which a .pth does not '
    'record (default: the published 3)',
  )
  audit.set_defaults(run=lambda args: convert(args.source, args.to, args.steps))
  _add_compare(commands)
  bench.add_to(commands)
  _add_plan(commands)
  _add_prepare(commands)
  _add_rain(commands)
  return parser


# Flag, type, default and meaning, of comparing JAX with PyTorch.
_STUDY = (
  ('steps', int, None, 'refinement steps of a .pth (default: as published)'),
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
)


def _add_compare(commands) -> None:
  audit = commands.add_parser(
    'compare', help='set runs side by side, or JAX and PyTorch'
  )
  what = audit.add_mutually_exclusive_group(required=True)
  what.add_argument(
    '--runs',
    nargs='+',
    metavar='WORKDIR',
    help='folders of training runs, finished or not',
  )
  what.add_argument(
    '--weights',
    help='network to run in JAX and in PyTorch: the workdir of a run, a '
    'weights folder, or a .pth file',
  )
  what.add_argument(
    '--random',
    type=int,
    metavar='SEED',
    help='the same, its weights drawn',
  )
  audit.add_argument(
    '--out', required=True, help='folder for JSON and HTML files'
  )
  study = audit.add_argument_group('JAX and PyTorch')
  for name, kind, default, text in _STUDY:
    shown = '' if default is None else f' (default: {default})'
    study.add_argument(
      f'--{name}', type=kind, default=default, help=text + shown
    )
  audit.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> None:
  settings = vars(args)
  del settings['run']
  runs = settings.pop('runs')
  if runs is None:
    # Not above: it needs PyTorch, which the other commands do without.
    from mixdtp_jax.tools.compare.command import compare_frameworks

    compare_frameworks(**settings)
    return
  for name, _, default, _ in _STUDY:
    if settings[name] != default:
      raise ValueError(f'--runs needs no --{name}: drop the one or the other')
  # Accelerators may be busy with the very runs that are looked at.
  jax.config.update('jax_platforms', 'cpu')
  compare_runs(runs, args.out)


def audit(sources: list[str], path: str) -> None:
  """Audits data sets; see `mixdtp_jax.cli.audit.run`."""
  # TensorFlow takes seconds to import, which the other commands do without.
  from mixdtp_jax.cli import audit

  console.set_up_logging()
  audit.run(sources, path)


def _add_rain(commands: argparse._SubParsersAction) -> None:
  audit = commands.add_parser(
    'rain', help='draw the rain of every preset on a photograph'
  )
  audit.add_argument('photograph', help='a PNG or JPEG file')
  audit.add_argument(
    '--to', required=True, metavar='TARGET', help='PNG file to write'
  )
  audit.add_argument('--seed', type=int, default=0, help='of the rain')
  audit.set_defaults(run=lambda args: rain(args.photograph, args.to, args.seed))


def _add_prepare(commands: argparse._SubParsersAction) -> None:
  audit = commands.add_parser(
    'prepare', help='check a data set and write the copy that training reads'
  )
  audit.add_argument(
    'name', nargs='?', help='rain100l, rain800, pairs, ...; see README'
  )
  audit.add_argument(
    '--source', default='', help='folder of the files as published'
  )
  audit.add_argument('--data_dir', help='folder of prepared copies')
  audit.add_argument(
    '--partial',
    action='store_true',
    help='take what is there of a published set, not only all of it',
  )
  audit.add_argument(
    '--exclude',
    default='',
    metavar='FILE',
    help='leave out of training what an audit found; FILE is its JSON',
  )
  audit.add_argument(
    '--audit',
    nargs='+',
    metavar='NAME=FOLDER',
    help='prepare nothing, but look for what is wrong in these data sets and '
    'leaks between them; findings are a report, the exit status is 0',
  )
  audit.add_argument(
    '--json',
    default='audit.json',
    metavar='FILE',
    help='--audit writes it (default: audit.json)',
  )

  audit.set_defaults(run=lambda args: _prepare_or_audit(audit, args))


def _prepare_or_audit(
  command: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
  if args.audit and not args.name:
    audit(args.audit, args.json)
  elif args.name and args.data_dir and not args.audit:
    prepare(args.name, args.source, args.data_dir, args.partial, args.exclude)
  else:
    audit.error('give NAME and --data_dir, or --audit alone')


def _add_plan(commands) -> None:
  audit = commands.add_parser(
    'plan',
    help='what training needs on a TPU slice, without one, or on this machine',
    description='Compiles the training step and reports memory, exchanges, '
    'operations and time. The exit status is 1 where it does not fit.',
  )
  audit.add_argument(
    '--config',
    required=True,
    help='a file of configs/; --config.KNOB=VALUE changes a knob',
  )
  audit.add_argument(
    '--topology',
    help='TPU slice: generation and chips along each axis, such as v5e:4x4 or '
    "v5p:4x4x4, by libtpu; or GPUs, such as h100:8, by JAX's CUDA plugin "
    '(default: this machine)',
  )
  audit.add_argument(
    '--utilisation',
    type=float,
    default=0.3,
    help='part of the peak rate that products reach (default: 0.3)',
  )
  audit.add_argument(
    '--search',
    nargs='*',
    metavar='REMAT',
    help='also look for the largest batch that fits, for these values of '
    'model.remat (without any: for all); two to six more compilations each',
  )
  audit.add_argument('--out', metavar='FILE', help='JSON file to write')
  audit.set_defaults(run=_plan, overrides=[])


def _plan(args: argparse.Namespace) -> None:
  # Not above: TensorFlow takes seconds to import.
  from mixdtp_jax.tools.plan.report import plan

  settings = vars(args)
  del settings['run']
  if not plan(**settings):
    sys.exit('error: it does not fit')


def _parse() -> argparse.Namespace:
  """The arguments; those of --config.KNOB=VALUE where a command takes them."""
  parser = _parser()
  args, rest = parser.parse_known_args()
  knobs = [text for text in rest if text.startswith('--config.')]
  if rest != knobs or (rest and 'overrides' not in args):
    parser.error(f'unrecognized arguments: {" ".join(rest)}')
  if knobs:
    args.overrides = [text.removeprefix('--config.') for text in knobs]
  return args


def main() -> None:
  """Runs a command; an expected failure is one line and exit status 1."""
  args = _parse()
  try:
    args.run(args)
  except (OSError, ImportError, ValueError, MemoryError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
