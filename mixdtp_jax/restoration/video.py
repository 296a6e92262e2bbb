"""Video clips: restored frame by frame, with everything else kept.

Frames are encoded in segments, each a file of its own in a folder beside the
result. So a run that was stopped goes on from the last whole segment. At the
end the segments are joined with the sound and the subtitles of the source.
"""

import contextlib
import dataclasses
import hashlib
import heapq
import itertools
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from absl import logging
from av.codec.codec import PixFmtLoss, find_best_pix_fmt_of_list
from av.video.reformatter import ColorRange

from mixdtp_jax import __version__
from mixdtp_jax.data import images
from mixdtp_jax.restoration import clips
from mixdtp_jax.restoration.clips import Clip, ClipError
from mixdtp_jax.restoration.flicker import warping_error
from mixdtp_jax.runtime.files import replacing

_SEGMENT = 24  # frames: what a kill can lose
_FLICKER_EVERY = 8  # frames, of which one is compared with the one before
# Endings of files that hold the times of frames; others become Matroska.
_WRITTEN = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.flv')
_MPEG_TS = ('.ts', '.mts', '.m2ts')  # which does not say what it holds
# Tags of the source's video stream that are kept; others tell of its encoding.
_TAGS = ('language', 'title', 'handler_name', 'timecode', 'comment')
# swscale's matrices, by those of ITU-T H.273.
_SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_LIMITED_RANGE = 1
# Else SVT-AV1 tells its settings on stderr.
os.environ.setdefault('SVT_LOG', '1')
_GLOBAL_HEADER = 0x40  # of FFmpeg's flags of containers


class Codec(NamedTuple):
  """A way to encode.

  Attributes:
    encoder: FFmpeg's name.
    crf: quality if none is chosen, less is better; None if it has none.
    worst: the largest crf.
    options: of the encoder.
  """

  encoder: str
  crf: int | None = None
  worst: int = 0
  options: Mapping[str, str] = {}


# Without B-frames: packets are in the order of frames, so that all containers
# keep the times and the duration.
CODECS = {
  'h264': Codec('libx264', 16, 51, {'bf': '0'}),
  'h265': Codec('libx265', 18, 51, {'x265-params': 'bframes=0:log-level=none'}),
  'av1': Codec('libsvtav1', 24, 63, {'preset': '6'}),
  'vp9': Codec('libvpx-vp9', 20, 63, {'b': '0', 'row-mt': '1'}),
  'ffv1': Codec('ffv1'),
  'prores': Codec('prores_ks'),
}


@dataclasses.dataclass(frozen=True)
class Job:
  """A clip to restore.

  Attributes:
    clip: what is read.
    target: the file to write.
    encoder: FFmpeg's name.
    options: of the encoder.
    format: FFmpeg's name of the pixel format that is written.
    copied: indices of the streams that are copied.
    tags: whether titles, dates and places are copied.
  """

  clip: Clip
  target: Path
  encoder: str
  options: Mapping[str, str]
  format: str
  copied: tuple[int, ...] = ()
  tags: bool = True


class Result(NamedTuple):
  """What was done.

  Attributes:
    frames: number that was restored now, without those of an earlier run.
    seconds: that it took.
    flicker: before and after, in [0, 1]; None if no frames were compared.
  """

  frames: int
  seconds: float
  flicker: tuple[float, float] | None


class _Segment(NamedTuple):
  """Encoded frames.

  Attributes:
    data: the packets, one after the other, (bytes,) uint8.
    sizes: of the packets, in bytes.
    keys: whether a packet can be decoded by itself.
    flicker: (pairs, 2): before and after.
  """

  data: np.ndarray
  sizes: np.ndarray
  keys: np.ndarray
  flicker: np.ndarray


def choose_target(source: Path, output: str | None, codec: str) -> Path:
  """Returns the file to write: in the source's container if that holds it.

  Args:
    source: the clip.
    output: a file, or a folder; None for NAME_derained.EXT beside the clip.
    codec: a name of CODECS.
  """
  ending = source.suffix if _holds(source, codec) else '.mkv'
  if output is None:
    return source.with_name(f'{source.stem}_derained{ending}')
  path = Path(output).expanduser()
  if path.suffix and not path.is_dir() and not output.endswith(('/', os.sep)):
    return path
  return path / f'{source.stem}{ending}'


def prepare(
  clip: Clip, target: Path, codec: str, crf: int | None, tags: bool
) -> Job:
  """Decides how a clip is written, and tries that with two black frames.

  Args:
    clip: what is read.
    target: the file to write; its ending names the container.
    codec: a name of CODECS.
    crf: quality; None for the codec's usual one.
    tags: whether titles, dates and places are copied.

  Raises:
    ClipError: the codec loses bits or transparency, or the container does not
      hold the codec, the size or the times.
    ValueError: `crf` is out of range.
  """
  encoder, usual, worst, options = CODECS[codec]
  if crf is not None and (usual is None or not 0 <= crf <= worst):
    limit = f'needs 0 to {worst}' if worst else 'there is none: leave it out'
    raise ValueError(f'--crf {crf}: for {codec}, {limit}')
  if usual is not None:
    options = {**options, 'crf': str(usual if crf is None else crf)}
  if not _holds(target, codec):
    raise ClipError(
      f'{images.name_of(target)}: such files do not hold {codec} or the '
      'times of frames: write .mkv, or choose another --codec'
    )
  job = Job(clip, target, encoder, options, _format(clip, codec), tags=tags)
  _say_changes(job)
  with clips.opened(clip.path) as source:
    types = {s.index: s.type for s in source.streams if s.index != clip.stream}
    copied = tuple(i for i in types if _fits(source.streams[i], target))
  if lost := [f'{i} ({t})' for i, t in types.items() if i not in copied]:
    logging.warning(
      '%s: written without streams %s', clip.name, ', '.join(lost)
    )
  job = dataclasses.replace(job, copied=copied)
  black = np.zeros(
    (clip.height, clip.width, 4 if clip.alpha else 3),
    np.uint16 if clip.depth > 8 else np.uint8,
  )
  brief = dataclasses.replace(clip, times=clip.times[:2])
  with _writing(job), tempfile.TemporaryDirectory() as folder:
    path = Path(folder, f'trial{target.suffix}')
    trial = dataclasses.replace(job, clip=brief, target=path)
    _join(trial, [_encoded(trial, [black] * len(brief.times))])
  return job


def restore(
  job: Job,
  network: Callable[[np.ndarray], np.ndarray],
  key: Any,
  progress: Callable[[int], None],
) -> Result:
  """Restores a clip, and goes on with what an earlier run left.

  The file is written whole or not at all.

  Args:
    job: what to do.
    network: restores the pixels of a frame.
    key: what else the result depends on, such as the weights. Frames of an
      earlier run are used if its job and its key have the same texts.
    progress: is called with the number of frames done.

  Raises:
    ClipError: the clip cannot be read, or the file cannot be written.
  """
  clip, start = job.clip, time.perf_counter()
  folder = job.target.with_name(f'.{job.target.name}.parts')
  files = _parts(folder, job, key)
  done = earlier = sum(len(_load(file).sizes) for file in files)
  if done:
    logging.info('%s: %d frames are restored already', clip.name, done)
  frames = clips.read(clip, done)
  while done < len(clip.times):
    flicker: list[tuple[float, float]] = []
    restored = _restored(
      itertools.islice(frames, _SEGMENT), network, flicker, done, progress
    )
    with _writing(job):
      segment = _encoded(job, restored, flicker)
      files.append(folder / f'{len(files):06}.npz')
      with replacing(files[-1]) as temporary:
        np.savez(temporary, **segment._asdict())
    if not segment.sizes.size:
      raise ClipError(f'{clip.name} has changed while it was restored')
    done += segment.sizes.size
  seconds = time.perf_counter() - start
  with _writing(job):
    _join(job, map(_load, files))
  pairs = np.concatenate([_load(file).flicker for file in files])
  pairs = pairs[np.isfinite(pairs).all(1)]
  shutil.rmtree(folder)
  before, after = pairs.mean(0) if len(pairs) else (0.0, 0.0)
  return Result(
    done - earlier,
    seconds,
    (float(before), float(after)) if len(pairs) else None,
  )


def _parts(folder: Path, job: Job, key: Any) -> list[Path]:
  """Returns the whole segments of the same work; removes those of another."""
  state = job.clip.path.stat()
  work = job, key, state.st_size, state.st_mtime_ns, __version__
  text = repr((work, av.__version__, sorted(av.library_versions.items())))
  digest = hashlib.sha256(text.encode()).hexdigest()
  known = folder / 'key'
  if not known.exists() or known.read_text() != digest:
    shutil.rmtree(folder, ignore_errors=True)
    with replacing(known) as temporary:
      Path(temporary).write_text(digest)
  files: list[Path] = []
  while True:
    file = folder / f'{len(files):06}.npz'
    try:
      _load(file)
    # Not there, or damaged when the machine went down.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
      return files
    files.append(file)


def _load(file: Path) -> _Segment:
  with open(file, 'rb') as opened, np.load(opened) as arrays:
    return _Segment(**arrays)


def _restored(
  frames: Iterator[np.ndarray],
  network: Callable[[np.ndarray], np.ndarray],
  flicker: list[tuple[float, float]],
  done: int,
  progress: Callable[[int], None],
) -> Iterator[np.ndarray]:
  """Restores frames, and adds the flicker of some of them to `flicker`."""
  last: tuple[np.ndarray, np.ndarray] | None = None
  for number, frame in enumerate(frames):
    result = network(frame)
    if last and number % _FLICKER_EVERY == 1:
      flicker.append(
        (warping_error(last[0], frame), warping_error(last[1], result))
      )
    last = frame, result
    progress(done + number + 1)
    yield result


def _format(clip: Clip, codec: str) -> str:
  """Returns the pixel format to write: the nearest that loses no bits.

  Raises:
    ClipError: there is none.
  """
  formats = [
    each
    for each in av.Codec(CODECS[codec].encoder, 'w').video_formats or ()
    # The others are of one plane less, or shown by few players.
    if not each.name.startswith(('yuvj', 'nv'))
    and (codec == 'ffv1' or not each.name.startswith('gray'))
  ]
  if clip.height % 2 or clip.width % 2:
    # With fewer colours than pixels, H.264 would lose a row or column.
    full = [f for f in formats if f.chroma_width(2) == f.chroma_height(2) == 2]
    formats = full or formats
  best, loss = find_best_pix_fmt_of_list(formats, clip.format, clip.alpha)
  if loss & PixFmtLoss.DEPTH:
    raise ClipError(
      f'{clip.name} has {clip.depth} bits for each sample, and {codec} keeps '
      'fewer: choose --codec h265 or ffv1, or convert it'
    )
  if clip.alpha and loss & PixFmtLoss.ALPHA:
    raise ClipError(
      f'{clip.name} is transparent in places, which {codec} does not keep: '
      'choose --codec ffv1, or prores'
    )
  return best.name


def _say_changes(job: Job) -> None:
  clip = job.clip
  if clip.interlaced:
    logging.warning(
      '%s is interlaced, and restored as whole frames: deinterlace it first',
      clip.name,
    )
  widths = [
    av.VideoFormat(f).chroma_width(2) for f in (clip.format, job.format)
  ]
  if widths == [1, 2]:
    logging.info(
      '%s has an odd side, so each pixel gets its own colour (%s), which some '
      'players do not show',
      clip.name,
      job.format,
    )


def _holds(path: Path, codec: str) -> bool:
  """Returns whether a kind of file holds a codec and the times of frames."""
  ending = path.suffix.lower()
  if ending in _MPEG_TS:
    return codec in ('h264', 'h265')
  if ending not in _WRITTEN:
    return False
  with av.open(f'file:any{ending}', 'w') as container:  # is not written
    return CODECS[codec].encoder in container.supported_codecs


def _fits(stream: Any, target: Path) -> bool:
  """Returns whether a stream can be copied into a kind of file."""
  with (
    contextlib.suppress(av.FFmpegError, ValueError),
    tempfile.TemporaryDirectory() as folder,
    av.open(f'file:{folder}/trial{target.suffix}', 'w') as container,
  ):
    container.add_stream_from_template(stream, opaque=True)
    container.start_encoding()
    return True
  return False


@contextlib.contextmanager
def _writing(job: Job) -> Iterator[None]:
  try:
    yield
  except ClipError:
    raise
  # Times of damaged clips may be too large, or of a wrong order.
  except (av.FFmpegError, ArithmeticError) as error:
    reason = getattr(error, 'strerror', '') or error
    raise ClipError(
      f'{images.name_of(job.target)} cannot be written by {job.encoder} in '
      f'{job.format}: {reason}'
    ) from error


def _configure(context: Any, job: Job) -> None:
  """Prepares an encoder; the unit of its time is a frame."""
  clip, is_rgb = job.clip, av.VideoFormat(job.format).is_rgb
  context.width, context.height = clip.width, clip.height
  context.pix_fmt, context.options = job.format, dict(job.options)
  context.framerate, context.time_base = clip.rate, 1 / clip.rate
  context.sample_aspect_ratio = clip.aspect or 0
  matrix, span, context.color_trc, context.color_primaries = clip.tags
  if is_rgb:
    matrix, span = 0, clips.FULL_RANGE
  elif av.VideoFormat(clip.format).is_rgb:
    matrix, span = clip.matrix, _LIMITED_RANGE
  context.colorspace, context.color_range = matrix, span


def _encoded(
  job: Job,
  frames: Iterable[np.ndarray],
  flicker: list[tuple[float, float]] | None = None,
) -> _Segment:
  """Encodes frames so that they can be decoded without others.

  Args:
    job: how.
    frames: (H, W, 3 or 4) uint8 or uint16.
    flicker: of some of them; is read after the last frame.
  """
  context: Any = av.CodecContext.create(job.encoder, 'w')
  _configure(context, job)
  with av.open(f'file:{job.target}', 'w') as container:
    if container.format.flags & _GLOBAL_HEADER:
      context.flags |= av.codec.context.Flags.global_header
  full = context.color_range == clips.FULL_RANGE
  packets = []
  for number, pixels in enumerate(frames):
    frame = clips.convert(
      av.VideoFrame.from_ndarray(pixels, clips.layout(job.clip)),
      job.format,
      dst_colorspace=_SWSCALE[job.clip.matrix],
      dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
    )
    frame.pts, frame.time_base = number, context.time_base
    packets += context.encode(frame)
  packets += context.encode(None)
  return _Segment(
    np.frombuffer(b''.join(map(bytes, packets)), np.uint8),
    np.array([packet.size for packet in packets], int),
    np.array([packet.is_keyframe for packet in packets], bool),
    np.array(flicker or ()).reshape(-1, 2),
  )


def _join(job: Job, segments: Iterable[_Segment]) -> None:
  """Writes the segments, and what is copied from the source, to a file."""
  clip = job.clip
  with replacing(job.target) as temporary:
    with (
      clips.opened(clip.path) as source,
      av.open(f'file:{temporary}', 'w') as target,
    ):
      stream: Any = target.add_stream(job.encoder, rate=clip.rate)
      _configure(stream.codec_context, job)
      stream.time_base = clip.time_base
      copies = {
        index: target.add_stream_from_template(
          source.streams[index], opaque=True
        )
        for index in job.copied
      }
      _copy_tags(job, source, target, {clip.stream: stream, **copies})
      for packet in heapq.merge(
        _video_packets(clip, segments, stream),
        _copied_packets(clip, source, copies),
        key=lambda packet: packet.dts * packet.time_base,
      ):
        target.mux(packet)
    _verify(Path(temporary), clip)


def _copy_tags(
  job: Job, source: Any, target: Any, streams: Mapping[int, Any]
) -> None:
  for index, stream in streams.items():
    given = source.streams[index]
    stream.disposition = given.disposition
    for name, value in given.metadata.items() if job.tags else ():
      if index != job.clip.stream or name in _TAGS:
        stream.metadata[name] = value
  if job.tags:
    target.metadata.update(source.metadata)
  if job.clip.start is None and job.clip.end is None:
    target.set_chapters(source.chapters())


def _video_packets(
  clip: Clip, segments: Iterable[_Segment], stream: Any
) -> Iterator[Any]:
  """Yields packets with the times of the source's frames."""
  first = clip.times[0] if clip.start is not None else 0
  times = [time - first for time in clip.times]
  ends = [*times[1:], times[-1] + clip.last]
  number = 0
  for segment in segments:
    place = 0
    for size, key in zip(segment.sizes, segment.keys, strict=True):
      packet: Any = av.Packet(segment.data[place : place + size].tobytes())
      packet.stream, packet.time_base = stream, clip.time_base
      packet.pts = packet.dts = times[number]
      packet.duration = ends[number] - times[number]
      packet.is_keyframe = bool(key)
      number, place = number + 1, place + size
      yield packet


def _copied_packets(
  clip: Clip, source: Any, copies: Mapping[int, Any]
) -> Iterator[Any]:
  """Yields the packets of other streams that begin in the restored part."""
  first = clip.start or 0
  cover = av.stream.Disposition.attached_pic
  streams = [source.streams[index] for index in copies]
  for packet in source.demux(*streams) if streams else ():
    if not packet.size:  # the end of a stream
      continue
    packet.pts = packet.dts or 0 if packet.pts is None else packet.pts
    packet.dts = packet.pts if packet.dts is None else packet.dts
    if not packet.stream.disposition & cover:
      seconds = packet.pts * packet.time_base
      early = clip.start is not None and seconds < first
      if early or (clip.end is not None and seconds >= clip.end):
        continue
      shift = round(first / packet.time_base)
      packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
    packet.stream = copies[packet.stream_index]
    yield packet


def _verify(path: Path, clip: Clip) -> None:
  """Checks that a file holds every frame at its time.

  Raises:
    ClipError: it does not.
  """
  with clips.opened(path) as container:
    stream = container.streams.video[0]
    tick = max(stream.time_base, clip.time_base)
    size = stream.codec_context.width, stream.codec_context.height
    packets = (p for p in container.demux(stream) if p.pts is not None)
    found = sorted(packet.pts * stream.time_base for packet in packets)
  wanted = [time * clip.time_base for time in clip.times]
  pairs = zip(found, wanted, strict=False)
  if (
    size != (clip.width, clip.height)
    or len(found) != len(wanted)
    or any(abs(a - found[0] - b + wanted[0]) > tick for a, b in pairs)
  ):
    raise ClipError(
      f'{path.suffix} does not hold the size or the times of the frames of '
      f'{clip.name}: write .mkv'
    )
