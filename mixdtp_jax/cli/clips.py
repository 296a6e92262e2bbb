"""The video clips among the inputs of `mixdtp derain`."""

import argparse
import glob
import json
import os
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


def take(args: argparse.Namespace) -> tuple[list[Path], int]:
  """Takes the clips out of the inputs, and counts results among them.

  Raises:
    FileNotFoundError: a clip is not there.
    ValueError: options of pictures and of clips are mixed up.
  """
  from mixdtp_jax.restoration import folders

  found = [text for text in args.inputs if _is_clip(text)]
  kinds = ('pictures', 'clips') if found else ('clips', 'pictures')
  own = ('codec', 'crf', 'start', 'end')
  for name in ('format', 'quality', 'compare') if found else own:
    if getattr(args, name) not in (None, False):
      raise ValueError(
        f'--{name} is for {kinds[0]}: leave it out with {kinds[1]}'
      )
  args.inputs = [text for text in args.inputs if text not in found]
  paths = [Path(name) for text in found for name in _matches(text)]
  if missing := [path for path in paths if not path.exists()]:
    raise FileNotFoundError(f'{folders.name_of(missing[0])} is not there')
  ours = set() if args.output else folders.results_among(paths)
  return [path for path in paths if path not in ours], len(ours)


def _matches(text: str) -> list[str]:
  text = os.path.expanduser(text)
  there = Path(text).exists()
  return (not there and sorted(glob.glob(text, recursive=True))) or [text]


def _is_clip(text: str) -> bool:
  from mixdtp_jax.restoration import encoding, folders

  path = Path(os.path.expanduser(text))
  if path.suffix.lower() in folders.CLIP_ENDINGS:
    return True
  if encoding.format_of(path.name) or not path.is_file():
    return False
  try:
    from mixdtp_jax.restoration import clips
  except ModuleNotFoundError:
    return False
  return clips.is_video(path)


def restore(args: argparse.Namespace, paths: Sequence[Path]) -> tuple[int, int]:
  """Restores clips and tells about each.

  Returns:
    How many were restored, and how many failed.
  """
  from mixdtp_jax.restoration import video
  from mixdtp_jax.weights import shipped

  if not (targets := _targets(args, paths)):
    return 0, 0
  restorer = options.load_restorer(args)
  jobs = [job for job in _jobs(args, targets, restorer) if job is not None]
  failed = len(targets) - len(jobs)
  weights = shipped.locate(args.weights)
  times = [p.stat().st_mtime_ns for p in (weights, *weights.rglob('*'))]
  key = str(weights), max(times), args.dtype
  lost = 0
  for job in jobs:
    clip = job.clip
    try:
      result = video.restore(
        job,
        restorer.restore,
        key,
        console.progress(f'{clip.name}: frame', len(clip.times)),
        args.overwrite,
      )
    except (OSError, ValueError, MemoryError) as error:
      lost += _fail(args, clip.path, error)
    else:
      _say(args, job, result)
  return len(jobs) - lost, failed + lost


def _targets(
  args: argparse.Namespace, paths: Sequence[Path]
) -> dict[Path, Path]:
  """Returns the clips to restore, by the file that each becomes.

  ValueError if two clips would have one output, or one would be overwritten, or
  the codec has no such quality.
  """
  from mixdtp_jax.restoration import video

  codec, targets = args.codec or 'h264', dict[Path, Path]()
  video.choose_encoder(codec, args.crf)
  for path in paths:
    target = video.choose_target(path, args.output, codec)
    if (other := targets.setdefault(target, path)) != path:
      raise ValueError(
        f'{other} and {path} would both become {target}: restore them apart, '
        'each with its own -o'
      )
    if target.exists() and target.samefile(path):
      raise ValueError(f'{path} would be overwritten: give another -o')
  for target, path in list(targets.items()):
    if target.exists() and not args.overwrite:
      tell(args, path, 'skipped')
      del targets[target]
  return targets


def _jobs(
  args: argparse.Namespace, targets: dict[Path, Path], restorer: Any
) -> Iterator[Any]:
  """Yields the work on each clip; None for one that cannot be restored."""
  from mixdtp_jax.restoration import clips, video

  def check(clip: clips.Clip) -> None:
    try:
      # Of the encoder, which holds some frames.
      restorer.check(clip.height, clip.width, 16 * clip.height * clip.width)
    except ValueError as error:
      raise clips.ClipError(f'cannot be restored: {error}') from error

  for target, path in targets.items():
    try:
      with console.waiting(f'reading {path.name}'):
        clip = clips.survey(path, args.start, args.end, check)
      yield video.prepare(
        clip, target, args.codec or 'h264', args.crf, not args.strip_metadata
      )
    except (OSError, ValueError, MemoryError) as error:
      _fail(args, path, error)
      yield None


def _fail(args: argparse.Namespace, path: Path, error: Exception) -> int:
  console.show('')
  line = str(error) or 'there is too little memory'
  if type(error) in (ValueError, MemoryError):  # others name the clip
    line = f'{path}: {line}'
  logging.error('%s', line)
  tell(args, path, 'failed', error=line)
  return 1


def _say(args: argparse.Namespace, job: Any, result: Any) -> None:
  console.show('')
  clip, rate = job.clip, result.frames / max(result.seconds, 1e-9)
  before, after = result.flicker or (None, None)
  flicker = ''
  if result.flicker:
    flicker = f', flicker between frames {before:.4f} -> {after:.4f}'
  tell(
    args,
    clip.path,
    'restored',
    f'{clip.name} -> {job.target}: {len(clip.times)} frames of '
    f'{clip.width}x{clip.height} pixels, {rate:.2f} a second{flicker}',
    output=str(job.target),
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
