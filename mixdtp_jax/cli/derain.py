"""Take the rain out of pictures.

  mixdtp derain holiday.jpg                 writes holiday_derained.jpg
  mixdtp derain photos -o dry               a folder, with all folders below it
  mixdtp derain '*.png' --format jpg -o dry
  mixdtp derain - < rainy.png > dry.png     standard input and output
  mixdtp derain clip.mp4                    a video, with its sound

A picture keeps its size, format, depth of 8 or 16 bits, alpha, date, place and
colour profile; animations keep their timing. What exists already is skipped.
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from mixdtp_jax.cli import clips, options
from mixdtp_jax.cli.parser import Parser
from mixdtp_jax.runtime import console
from mixdtp_jax.runtime.files import local_path

_FORMATS = ('png', 'jpg', 'webp', 'tiff', 'avif', 'bmp', 'gif', 'heic')
_PILLOWS = {'jpg': 'JPEG', 'heic': 'HEIF'}  # other names of them
_SPELLINGS = {'jpeg': 'jpg', 'tif': 'tiff', 'heif': 'heic'}
# Options that other programs have, and what to type here.
_HABITS = {
  ('-i', '--input'): 'give pictures and folders without an option: mixdtp '
  'derain photo.jpg',
  ('-n', '--model_name', '--model'): 'choose the network by --weights',
  ('-t', '--tile'): 'there are no tiles, as every picture is restored as a '
  'whole; limit the memory by --memory, such as --memory 2GB',
  ('-s', '--outscale', '--scale'): 'pictures keep their size; leave it out',
  ('-g', '--gpu-id'): 'all devices are used; choose some by the environment '
  'variable CUDA_VISIBLE_DEVICES',
}


class _Habit(argparse.Action):
  """Refuses an option of another program, and names ours."""

  def __call__(self, parser, namespace, values, option_string=None):
    del namespace, values
    parser.error(f'{option_string} is no option here: {self.const}')


def add_arguments(parser: Parser) -> None:
  """Adds the options of the command."""
  parser.add_argument(
    'inputs',
    nargs='+',
    metavar='INPUT',
    help='picture, video clip, folder of pictures, or pattern in quotes; - '
    'reads standard input',
  )
  parser.add_argument(
    '-o',
    '--output',
    metavar='OUT',
    help='file to write, for one input, or folder, which keeps names and '
    'folders; - writes to standard output (default: NAME_derained.EXT beside '
    'each input)',
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='redo what exists already'
  )
  parser.add_argument(
    '--compare',
    action='store_true',
    help='also write NAME_compare.jpg, which shows before and after',
  )
  _add_format(parser)
  clips.add_arguments(parser)
  options.add_network(parser)
  for words, remedy in _HABITS.items():
    parser.add_argument(
      *words, action=_Habit, nargs='?', const=remedy, help=argparse.SUPPRESS
    )


def _add_format(parser: Parser) -> None:
  group = parser.add_argument_group('what is written')
  group.add_argument(
    '--format',
    choices=_FORMATS,
    type=lambda text: _SPELLINGS.get(text.lower(), text.lower()),
    help='format to write (default: that of each input)',
  )
  group.add_argument(
    '--quality',
    type=_quality,
    metavar='1..100',
    help='quality of JPEG, WebP, AVIF and HEIC (default: about that of the '
    'input; 95 for a JPEG of another format)',
  )
  group.add_argument(
    '--strip-metadata',
    action='store_true',
    help='leave out EXIF, XMP and the colour profile; without its profile a '
    'picture of a wide colour space looks different',
  )
  group.add_argument(
    '--json',
    action='store_true',
    help='print a line of JSON for each picture: size, seconds, megapixels '
    'per second, peak memory in bytes',
  )


def _quality(text: str) -> int:
  if text.isdecimal() and 1 <= int(text) <= 100:
    return int(text)
  raise argparse.ArgumentTypeError(f'{text!r} is not a number from 1 to 100')


def run(args: argparse.Namespace) -> int:
  """Restores the pictures; returns 1 if one of them failed."""
  from mixdtp_jax.restoration import folders
  from mixdtp_jax.weights import shipped

  if args.scratch and not os.path.isdir(args.scratch):
    raise NotADirectoryError(f'--scratch {args.scratch}: not a folder')
  if '' in (args.output, *args.inputs):
    raise ValueError('an input or -o is empty: give a name')
  if not (weights := shipped.locate(args.weights)).exists():
    raise shipped.not_found(weights)
  format = _PILLOWS.get(args.format, (args.format or '').upper())
  if '-' in (args.output, *args.inputs):
    plan = folders.Plan([_piped_job(args, format)])
  else:
    plan = folders.make_plan(
      args.inputs,
      args.output,
      format=format,
      compare=args.compare,
      overwrite=args.overwrite,
      codec=args.codec or 'h264',
    )
  clips.check_options(args, any(job.clip for job in (*plan.jobs, *plan.done)))
  videos = [job for job in plan.jobs if job.clip]
  pictures = [job for job in plan.jobs if not job.clip]
  _check_heic(pictures)
  for job in plan.done:
    clips.tell(args, job.source, 'skipped')
  done: collections.Counter[str] = collections.Counter()
  if videos:
    done.update(clips.restore(args, videos))
  if pictures:
    done.update(_restore(args, pictures))
  kept = len(plan.done)
  counts = {
    'restored': done['restored'],
    'compared with results that exist': done['compared'],
    'left out as results of this command': plan.results,
    'failed': done['failed'],
    'kept as it was: --overwrite restores it again'
    if kept == 1
    else 'kept as they were: --overwrite restores them again': kept,
  }
  if sum(counts.values()) > 1 or not done:
    shown = [f'{count:,} {what}' for what, count in counts.items() if count]
    logging.info('%s', ', '.join(shown))
  return 1 if done['failed'] else 0


def _check_heic(jobs: Sequence[Any]) -> None:
  from mixdtp_jax.data import images

  wanted = any(job.format == 'HEIF' for job in jobs)
  if wanted and 'HEIF' not in images.formats():
    raise ValueError(
      f'HEIC needs another package: {sys.executable} -m pip install pillow-heif'
    )


def _piped_job(args: argparse.Namespace, format: str):
  """Returns the work of a pipe: from standard input, to standard output."""
  from mixdtp_jax.restoration import encoding, folders

  if len(args.inputs) > 1:
    raise ValueError('- stands for one picture: give it alone')
  if args.compare:
    raise ValueError('--compare needs a file as input and as output')
  target = None
  if args.output in (None, '-'):
    if args.json:
      raise ValueError(
        'the picture goes to standard output: leave out --json, or give a file '
        'by -o'
      )
    if not sys.stdout or sys.stdout.isatty():
      raise ValueError(
        'standard output is a terminal: redirect it, or give a file by -o'
      )
  else:
    target = pathlib.Path(local_path(args.output))
    if not format or target.is_dir() or encoding.format_of(target.name):
      target, folder = folders.places(args.inputs, args.output, format)
      if target is None:
        raise ValueError(f'-o {folder}: needs a file, such as dry.png')
      format = encoding.format_of(target.name)
    if target.exists() and not args.overwrite:
      raise FileExistsError(f'{target} exists: --overwrite replaces it')
  if args.inputs != ['-']:
    source = pathlib.Path(os.path.expanduser(args.inputs[0]))
    if folders.is_clip(source):
      raise ValueError('a clip is written to a file: give its name by -o')
    return folders.Job(source, target, None, format, 1)
  if not sys.stdin or sys.stdin.isatty():
    raise ValueError('standard input is a terminal: redirect a picture to it')
  data = sys.stdin.buffer.read()
  return folders.Job(data, target, None, format, len(data))


def _restore(args: argparse.Namespace, jobs: Sequence[Any]) -> Iterator[str]:
  """Restores pictures and tells about each; yields what became of them."""
  from mixdtp_jax.restoration import batch, memory_plan

  memory = args.memory or memory_plan.half_of_free()
  ahead = memory // 1600  # so a tenth of it is for pictures beside
  settings = batch.Settings(
    args.quality, not args.strip_metadata, args.overwrite, ahead
  )
  restore: Any = None
  if not all(job.kept for job in jobs):  # not only sheets are missing
    restorer = options.load_restorer(args)
    restorer.beside = batch.BESIDE * ahead
    restore = restorer.restore
    settings = dataclasses.replace(settings, check=restorer.check)
  what = '1 picture' if len(jobs) == 1 else f'{len(jobs):,} pictures'
  report = console.progress(what, 100, percent=True)

  def tell(part: float) -> None:
    report(max(1, round(100 * part)))

  for work in batch.restore_files(jobs, restore, settings, tell):
    yield _say(args, work)


def _say(args: argparse.Namespace, work) -> str:
  """Tells about a picture; returns 'restored', 'compared' or 'failed'."""
  from mixdtp_jax.restoration import memory_plan

  console.show('')
  source, picture = work.job.source, work.picture
  if work.error:
    logging.error('%s', work.error)
    clips.tell(args, source, 'failed', error=work.error)
    return 'failed'
  if work.lost:
    logging.warning('%s: written without %s', picture.name, work.lost)
  if work.job.target is None:
    return 'restored'
  name = '-' if isinstance(source, bytes) else source
  target = work.job.sheet if work.job.kept else work.job.target
  names = (str(path) for path in (name, target))
  shown = ' -> '.join(n if n.isprintable() else ascii(n) for n in names)
  if work.job.kept:
    clips.tell(args, source, 'compared', shown, output=str(target))
    return 'compared'
  clips.tell(
    args,
    source,
    'restored',
    f'{shown}: {picture.width}x{picture.height} pixels in {work.seconds:.1f} s',
    output=str(target),
    width=picture.width,
    height=picture.height,
    frames=picture.count,
    seconds=round(work.seconds, 6),
    megapixels_per_second=round(picture.pixels / 1e6 / work.seconds, 3),
    peak_memory=memory_plan.most_held(),
  )
  return 'restored'
