"""Video clips: restored frame by frame, with everything else kept.

Frames are encoded in segments, each a file in a folder beside the result, so a
run that was stopped goes on from the last whole segment. At the end they are
joined with the sound and the subtitles of the source.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from absl import logging
from skimage.registration import optical_flow_ilk
from skimage.transform import warp

from mixdtp_jax import __version__
from mixdtp_jax.data import images
from mixdtp_jax.restoration import clip_files, clips
from mixdtp_jax.restoration.clips import Clip, ClipError
from mixdtp_jax.runtime.files import lock, replacing

_SEGMENT = 24  # frames: what a kill can lose
_SIDE = 256  # of the middle of a frame, in which flicker is measured
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Result(NamedTuple):
  """What a run did."""

  frames: int  # number restored, without those of an earlier run
  seconds: float
  flicker: list[float] | None  # [before, after], in [0, 1]; None if unknown


def choose_encoder(codec: str, crf: int | None) -> tuple[str, dict[str, str]]:
  """Returns FFmpeg's name of an encoder, and its options.

  `crf` is its quality, None for the usual one. ValueError if the codec has
  none, or none of this size.
  """
  encoder, usual, options = clip_files.CODECS[codec]
  most = 51 if encoder in ('libx264', 'libx265') else 63
  if usual is None:
    if crf is not None:
      raise ValueError(f'--crf {crf}: {codec} has none, leave it out')
    return encoder, options
  if crf is not None and crf > most:
    raise ValueError(f'--crf {crf}: the most of {codec} is {most}')
  return encoder, {**options, 'crf': str(usual if crf is None else crf)}


def prepare(
  clip: Clip, target: Path, codec: str, crf: int | None, tags: bool
) -> clip_files.Job:
  """Decides how a clip is written, and tries that with two black frames.

  Args:
    clip: the clip.
    target: the file, whose ending names the container.
    codec: a name of clip_files.CODECS.
    crf: its quality, as in `choose_encoder`.
    tags: whether titles, dates and places are copied.

  Raises:
    ClipError: the codec loses bits or transparency, or the container does not
      hold the codec, the size or the times.
    ValueError: see `choose_encoder`.
  """
  held = clip_files.HOLDS.get(target.suffix.lower(), ())
  if not held:
    raise ClipError(
      f'{images.name_of(target)}: no video container that is written: use one '
      f'of {" ".join(clip_files.HOLDS)}'
    )
  if codec not in held:
    raise ClipError(
      f'{images.name_of(target)}: such files do not hold {codec}: choose '
      f'--codec {" or ".join(held)}, or write .mkv'
    )
  format = clip_files.choose_format(clip, codec)
  _say_changes(clip, format)
  copied, lost = list[int](), list[str]()
  with clips.opened(clip.path) as source:
    for stream in source.streams:
      # What is discarded holds chapters, which are copied as such.
      discarded = stream.discard == av.stream.Discard.all
      if stream.index == clip.stream or discarded:
        continue
      if clip_files.fits(stream, target):
        copied.append(stream.index)
      else:
        lost.append(f'{stream.index} ({stream.type})')
  if lost:
    logging.warning(
      '%s: written without streams %s', clip.name, ', '.join(lost)
    )
  job = clip_files.Job(
    clip, target, *choose_encoder(codec, crf), format, tuple(copied), tags
  )
  black = np.zeros(
    (clip.height, clip.width, 4 if clip.alpha else 3),
    np.uint16 if clip.depth > 8 else np.uint8,
  )
  brief = dataclasses.replace(clip, times=clip.times[:2])
  with clip_files.writing(job), tempfile.TemporaryDirectory() as folder:
    path = Path(folder, f'trial{target.suffix}')
    trial = dataclasses.replace(job, clip=brief, target=path)
    frames = [black] * len(brief.times)
    clip_files.join(trial, [clip_files.encode(trial, frames)])
  return job


def _say_changes(clip: Clip, format: str) -> None:
  if clip.interlaced:
    logging.warning(
      '%s is interlaced, and restored as whole frames: deinterlace it first',
      clip.name,
    )
  widths = [av.VideoFormat(f).chroma_width(2) for f in (clip.format, format)]
  if widths == [1, 2]:
    logging.info(
      '%s has an odd side, so each pixel gets its own colour (%s), which some '
      'players do not show',
      clip.name,
      format,
    )


def restore(
  job: clip_files.Job,
  network: Callable[[np.ndarray], np.ndarray],
  key: Any,
  progress: Callable[[int], None],
  overwrite: bool,
) -> Result:
  """Restores a clip, and goes on with what an earlier run left.

  The file is written whole or not at all. Frames of an earlier run are used if
  the texts of its job and its `key` are the same: what else the result depends
  on, such as the weights. `network` restores the pixels of a frame; `progress`
  is called with the number of frames done.

  Raises:
    ClipError: the clip cannot be read; or the file cannot be written, exists
      without `overwrite`, or is written by another process.
  """
  clip, start = job.clip, time.perf_counter()
  with _parts_folder(job.target) as folder:
    parts = _parts(folder, job, key)
    done = earlier = sum(_load(part).sizes.size for part in parts)
    if done:
      logging.info('%s: %d frames are restored already', clip.name, done)
    pairs: list[tuple[float, float]] = []
    frames = _restored(clip, done, network, pairs, progress)
    while done < len(clip.times):
      with clip_files.writing(job):
        segment = clip_files.encode(job, itertools.islice(frames, _SEGMENT))
        segment = segment._replace(flicker=np.reshape(pairs, (-1, 2)))
        pairs.clear()
        parts.append(folder / f'{len(parts):06}.npz')
        with replacing(parts[-1]) as temporary:
          np.savez(temporary, **segment._asdict())
      if not segment.sizes.size:
        raise ClipError(f'{clip.name} has changed while it was restored')
      done += segment.sizes.size
    seconds = time.perf_counter() - start
    with clip_files.writing(job):
      clip_files.join(job, map(_load, parts), overwrite)
    flicker = np.concatenate([_load(part).flicker for part in parts])
  flicker = flicker[np.isfinite(flicker).all(1)]
  mean = flicker.mean(0).tolist() if len(flicker) else None
  return Result(done - earlier, seconds, mean)


def _restored(
  clip: Clip,
  done: int,
  network: Callable[[np.ndarray], np.ndarray],
  pairs: list[tuple[float, float]],
  progress: Callable[[int], None],
) -> Iterator[np.ndarray]:
  """Restores the frames that are not done yet.

  It adds the flicker of the first two of each segment, before and after.
  """
  last: tuple[np.ndarray, np.ndarray] | None = None
  for number, frame in enumerate(clips.read(clip, done), done):
    result = network(frame)
    if last and number % _SEGMENT == 1:
      pairs.append(
        (warping_error(last[0], frame), warping_error(last[1], result))
      )
    last = frame, result
    progress(number + 1)
    yield result


@contextlib.contextmanager
def _parts_folder(target: Path) -> Iterator[Path]:
  """Holds the folder of a file's segments, which is removed at the end.

  After an error it stays. ClipError if another process holds it.
  """
  folder = target.with_name(f'.{target.name}.parts')
  try:
    with lock(folder / 'lock'):
      yield folder
  except BlockingIOError as error:
    raise ClipError(
      f'{images.name_of(target)} is being written by another process: wait '
      'until that ends, or give another -o'
    ) from error
  shutil.rmtree(folder)


def _parts(folder: Path, job: clip_files.Job, key: Any) -> list[Path]:
  """Returns the whole segments of the same work; removes those of another."""
  state = job.clip.path.stat()
  work = job, key, state.st_size, state.st_mtime_ns, __version__
  text = repr((work, av.__version__, sorted(av.library_versions.items())))
  digest = hashlib.sha256(text.encode()).hexdigest()
  known = folder / 'key'
  if not known.exists() or known.read_text() != digest:
    for old in folder.glob('*.npz'):
      old.unlink()
    with replacing(known) as temporary:
      Path(temporary).write_text(digest)
  parts: list[Path] = []
  # The next one is not there, or was damaged when the machine went down.
  damaged = OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile
  with contextlib.suppress(*damaged):
    while True:
      file = folder / f'{len(parts):06}.npz'
      _load(file)
      parts.append(file)
  return parts


def _load(file: Path) -> clip_files.Segment:
  with open(file, 'rb') as opened, np.load(opened) as arrays:
    return clip_files.Segment(**arrays)


def warping_error(before: np.ndarray, frame: np.ndarray) -> float:
  """Returns the mean difference of two frames along their optical flow.

  This is the warping error of Lai et al. (Learning Blind Video Temporal
  Consistency, ECCV 2018) with absolute differences, in the middle 256x256
  pixels that both frames show: in [0, 1], NaN if there are none. Frames are
  (H, W, C) uint8 or uint16, C >= 3.
  """
  first, second = _middle(before), _middle(frame)
  grays = first @ _LUMA, second @ _LUMA
  # For a pixel of the second frame its place in the first, and back.
  back = optical_flow_ilk(grays[1], grays[0], radius=5)
  forth = optical_flow_ilk(grays[0], grays[1], radius=5)
  places = np.mgrid[: grays[0].shape[0], : grays[0].shape[1]] + back
  returned = np.stack([warp(f, places, mode='edge') for f in forth])
  moved = np.stack([warp(first[..., c], places, mode='edge') for c in range(3)])
  # Occlusion as Sundaram et al. find it (ECCV 2010): a way without return.
  lengths = np.square(back).sum(0) + np.square(returned).sum(0)
  seen = np.square(back + returned).sum(0) <= 0.01 * lengths + 0.5
  sides = np.array(grays[0].shape).reshape(2, 1, 1)
  seen &= ((places >= 0) & (places <= sides - 1)).all(0)
  errors = np.abs(moved - np.moveaxis(second, -1, 0)).mean(0)
  return float(errors[seen].mean()) if seen.any() else float('nan')


def _middle(pixels: np.ndarray) -> np.ndarray:
  """Returns RGB of the middle as float32 in [0, 1]."""
  top, left = (max(0, (side - _SIDE) // 2) for side in pixels.shape[:2])
  part = pixels[top : top + _SIDE, left : left + _SIDE, :3]
  return part / np.float32(np.iinfo(pixels.dtype).max)
