"""The video clips among the inputs of `mixdtp derain`."""

import argparse
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from absl import logging

from mixdtp_jax.cli import options
from mixdtp_jax.cli.parser import Parser
from mixdtp_jax.runtime import console


def add_arguments(parser: Parser) -> None:
  """Adds the options of clips."""
  group = parser.add_argument_group('video clips')
  group.add_argument(
    '--codec',
    choices=('h264', 'h265', 'av1', 'vp9', 'ffv1', 'prores'),
    help='how frames are encoded; ffv1 loses nothing (default: h264)',
  )
  group.add_argument(
    '--crf',
    type=int,
    choices=range(64),
    metavar='0..63',
    help='quality of h264 (default: 16), h265 (18), vp9 (20) and av1 (24): '
    'less is better, and larger',
  )
  group.add_argument(
    '--start',
    type=_seconds,
    metavar='TIME',
    help='restore from this time on: seconds, or H:MM:SS',
  )
  group.add_argument(
    '--end', type=_seconds, metavar='TIME', help='restore up to this time'
  )


def _seconds(text: str) -> Fraction:
  try:
    parts = [Fraction(part) for part in text.split(':')]
  except (ValueError, ZeroDivisionError):
    parts = []
  if not 1 <= len(parts) <= 3 or min(parts) < 0:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no time: write seconds, such as 12.5, or H:MM:SS'
    )
  return sum((p * 60**n for n, p in enumerate(reversed(parts))), Fraction())


def check_options(args: argparse.Namespace, has_clips: bool) -> None:
  """Raises ValueError if options of pictures and of clips are mixed up."""
  kinds = ('pictures', 'clips') if has_clips else ('clips', 'pictures')
  own = ('codec', 'crf', 'start', 'end')
  for name in ('format', 'quality', 'compare') if has_clips else own:
    if getattr(args, name) not in (None, False):
      raise ValueError(
        f'--{name} is for {kinds[0]}: leave it out with {kinds[1]}'
      )


def restore(args: argparse.Namespace, jobs: Sequence[Any]) -> Iterator[str]:
  """Restores clips, `Job`s of `folders`, and tells about each.

  Yields:
    'restored' or 'failed' for each.

  Raises:
    ValueError: the codec has no such --crf.
  """
  from mixdtp_jax.restoration import clips, video
  from mixdtp_jax.weights import shipped

  codec = args.codec or 'h264'
  video.choose_encoder(codec, args.crf)
  restorer = options.load_restorer(args)
  weights = shipped.locate(args.weights)
  times = [p.stat().st_mtime_ns for p in (weights, *weights.rglob('*'))]
  key = str(weights), max(times), args.dtype

  def check(clip: clips.Clip) -> None:
    try:
      # Of the encoder, which holds some frames.
      restorer.check(clip.height, clip.width, 16 * clip.height * clip.width)
    except ValueError as error:
      raise clips.ClipError(f'cannot be restored: {error}') from error

  ready = []
  for job in jobs:  # all are checked before the first is restored
    source = job.source
    try:
      with console.waiting(f'reading {source.name}'):
        clip = clips.survey(source, args.start, args.end, check)
      keep = not args.strip_metadata
      ready.append(video.prepare(clip, job.target, codec, args.crf, keep))
    except (OSError, ValueError, MemoryError) as error:
      yield _fail(args, source, error)
  for output in ready:
    clip = output.clip
    report = console.progress(f'{clip.name}: frame', len(clip.times))
    try:
      result = video.restore(
        output, restorer.restore, key, report, args.overwrite
      )
    except (OSError, ValueError, MemoryError) as error:
      yield _fail(args, clip.path, error)
    else:
      _say(args, output, result)
      yield 'restored'


def _fail(args: argparse.Namespace, source: Path, error: Exception) -> str:
  console.show('')
  line = str(error) or 'there is too little memory'
  if type(error) in (ValueError, MemoryError):  # others name the clip
    line = f'{source}: {line}'
  logging.error('%s', line)
  tell(args, source, 'failed', error=line)
  return 'failed'


def _say(args: argparse.Namespace, job: Any, result: Any) -> None:
  console.show('')
  clip, target = job.clip, job.target
  rate = result.frames / max(result.seconds, 1e-9)
  before, after = result.flicker or (None, None)
  flicker = ''
  if result.flicker:
    flicker = f', flicker between frames {before:.4f} -> {after:.4f}'
  tell(
    args,
    clip.path,
    'restored',
    f'{clip.name} -> {target}: {len(clip.times)} frames of '
    f'{clip.width}x{clip.height} pixels, {rate:.2f} a second{flicker}',
    output=str(target),
    width=clip.width,
    height=clip.height,
    frames=len(clip.times),
    seconds=round(result.seconds, 3),
    frames_per_second=round(rate, 3),
    flicker_before=before,
    flicker_after=after,
  )


def tell(
  args: argparse.Namespace, source: Path | bytes, status: str, line='', **facts
) -> None:
  """Prints a line about an input, or if that is wanted a line of JSON."""
  if args.json:
    name = '-' if isinstance(source, bytes) else str(source)
    line = json.dumps({'input': name, 'status': status} | facts)
  if line:
    print(line, flush=True)
