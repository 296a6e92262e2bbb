"""How clips are written: encoded frames, joined with the rest of the source."""

import contextlib
import dataclasses
import heapq
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.codec.codec import PixFmtLoss, find_best_pix_fmt_of_list
from av.video.reformatter import ColorRange

from mixdtp_jax.data import images
from mixdtp_jax.restoration import clips
from mixdtp_jax.restoration.clips import Clip, ClipError
from mixdtp_jax.runtime.files import replacing

# Tags of the source's video stream that are kept; others tell of its encoding.
_TAGS = ('language', 'title', 'handler_name', 'timecode', 'comment')
# Tags that tell of the source's file itself.
_OWN_TAGS = ('encoder', 'major_brand', 'minor_version', 'compatible_brands')
# swscale's matrices, by those of ITU-T H.273.
_SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_LIMITED_RANGE = 1
# Else SVT-AV1 tells its settings on stderr.
os.environ.setdefault('SVT_LOG', '1')


# FFmpeg's encoders, the usual quality if they have one, and other options.
# There are no B-frames: packets are in the order of frames, so that all
# containers keep the times and the duration.
CODECS: dict[str, tuple[str, int | None, dict[str, str]]] = {
  'h264': ('libx264', 16, {'bf': '0'}),
  'h265': ('libx265', 18, {'x265-params': 'bframes=0:log-level=none'}),
  'av1': ('libsvtav1', 24, {'preset': '6'}),
  'vp9': ('libvpx-vp9', 20, {'b': '0', 'row-mt': '1'}),
  'ffv1': ('ffv1', None, {}),
  'prores': ('prores_ks', None, {}),
}
_MPEG_TS = ('.ts', '.mts', '.m2ts')
# Files that hold the times of frames; clips in other files become Matroska.
HOLDS = {
  '.mkv': tuple(CODECS),
  '.mp4': ('h264', 'h265', 'av1', 'vp9'),
  '.mov': ('h264', 'h265', 'prores'),
  '.webm': ('av1', 'vp9'),
  **dict.fromkeys(('.m4v', '.flv'), ('h264',)),
  **dict.fromkeys(_MPEG_TS, ('h264', 'h265')),
}


@dataclasses.dataclass(frozen=True)
class Job:
  """A clip to restore."""

  clip: Clip
  target: Path  # the file to write
  encoder: str  # FFmpeg's name
  options: Mapping[str, str]  # of the encoder
  format: str  # FFmpeg's name of the pixel format that is written
  copied: tuple[int, ...]  # indices of the streams that are copied
  tags: bool  # whether titles, dates and places are copied


class Segment(NamedTuple):
  """Encoded frames: packets one after the other, sizes, whether key frames.

  `flicker`, (N, 2), is that of N pairs of frames, before and after.
  """

  data: np.ndarray
  sizes: np.ndarray
  keys: np.ndarray
  flicker: np.ndarray = np.zeros((0, 2))


def choose_format(clip: Clip, codec: str) -> str:
  """Returns the pixel format to write: the nearest that loses no bits.

  ClipError if there is none.
  """
  formats = [
    each
    for each in av.Codec(CODECS[codec][0], 'w').video_formats or ()
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
  assert best is not None  # there are formats
  return best.name


def fits(stream: Any, target: Path) -> bool:
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
def writing(job: Job) -> Iterator[None]:
  """Turns FFmpeg's errors into a `ClipError` that names the file."""
  try:
    yield
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


def _leave_real_time() -> None:
  """Undoes what SVT-AV1 does for root: real-time threads, which starve others.

  The thread that calls it is one of them, and so would be what it starts.
  """
  if getattr(os, 'sched_getscheduler', int)(0) != getattr(os, 'SCHED_FIFO', 1):
    return
  for thread in os.listdir('/proc/self/task'):
    with contextlib.suppress(OSError):  # it has ended
      os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))


def encode(job: Job, frames: Iterable[np.ndarray]) -> Segment:
  """Encodes frames, (H, W, 3 or 4) uint8 or uint16, as one segment."""
  context: Any = av.CodecContext.create(job.encoder, 'w')
  _configure(context, job)
  if job.target.suffix.lower() not in _MPEG_TS:
    context.flags |= av.codec.context.Flags.global_header
  full = context.color_range == clips.FULL_RANGE
  packets = []
  for number, pixels in enumerate(frames):
    frame = clips.convert(
      av.VideoFrame.from_ndarray(pixels, job.clip.layout),
      job.format,
      dst_colorspace=_SWSCALE[job.clip.matrix],
      dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
    )
    frame.pts, frame.time_base = number, context.time_base
    packets += context.encode(frame)
    _leave_real_time()
  packets += context.encode(None)
  return Segment(
    np.frombuffer(b''.join(map(bytes, packets)), np.uint8),
    np.array([packet.size for packet in packets], int),
    np.array([packet.is_keyframe for packet in packets], bool),
  )


def join(
  job: Job, segments: Iterable[Segment], overwrite: bool = False
) -> None:
  """Writes the segments, and what is copied from the source, to a file.

  ClipError if that exists, unless `overwrite`.
  """
  clip, options = job.clip, {}
  mp4 = job.target.suffix.lower() in ('.mp4', '.m4v', '.mov')
  with replacing(job.target) as temporary, clips.opened(clip.path) as source:
    # Telephones use tags beyond MP4's own.
    further = any(
      t.startswith(('com.', 'make', 'model')) for t in source.metadata
    )
    if job.tags and further and mp4:
      options = {'movflags': 'use_metadata_tags'}
    with av.open(f'file:{temporary}', 'w', options=options) as target:
      stream: Any = target.add_stream(job.encoder, rate=clip.rate)
      _configure(stream.codec_context, job)
      stream.time_base = clip.time_base
      copies = {}
      for index in job.copied:
        given = source.streams[index]
        copies[index] = target.add_stream_from_template(given, opaque=True)
      _copy_tags(job, source, target, {clip.stream: stream, **copies})
      for packet in heapq.merge(
        _video_packets(clip, segments, stream),
        _copied_packets(clip, source, copies),
        key=lambda packet: packet.dts * packet.time_base,
      ):
        target.mux(packet)
        _leave_real_time()
    _verify(Path(temporary), clip)
    if job.target.exists() and not overwrite:
      raise ClipError(
        f'{images.name_of(job.target)} exists by now: --overwrite replaces it'
      )


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
    kept = source.metadata.items()
    target.metadata.update({n: v for n, v in kept if n not in _OWN_TAGS})
  if job.clip.start is None and job.clip.end is None:
    titles: dict[str, Any] = {} if job.tags else {'metadata': {}}
    target.set_chapters([each | titles for each in source.chapters()])


def _video_packets(
  clip: Clip, segments: Iterable[Segment], stream: Any
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
  """Yields the packets of other streams that begin in the restored part.

  A subtitle that is on screen when it begins is shown from there.
  """
  first = clip.start or 0
  cover = av.stream.Disposition.attached_pic
  streams = [source.streams[index] for index in copies]
  for packet in source.demux(*streams) if streams else ():
    if not packet.size:  # the end of a stream
      continue
    packet.pts = packet.dts or 0 if packet.pts is None else packet.pts
    packet.dts = packet.pts if packet.dts is None else packet.dts
    if not packet.stream.disposition & cover:
      late = math.ceil(first / packet.time_base) - packet.pts
      if packet.stream.type == 'subtitle' and 0 < late < (packet.duration or 0):
        packet.pts = packet.dts = packet.pts + late
        packet.duration -= late
      seconds = packet.pts * packet.time_base
      early = clip.start is not None and seconds < first
      if early or (clip.end is not None and seconds >= clip.end):
        continue
      shift = round(first / packet.time_base)
      packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
    packet.stream = copies[packet.stream_index]
    yield packet


def _verify(path: Path, clip: Clip) -> None:
  """Checks that a file holds every frame at its time."""
  # FFmpeg does not recognise an MPEG-TS of few packets.
  format = 'mpegts' if path.suffix.lower() in _MPEG_TS else None
  with clips.opened(path, format) as container:
    stream = container.streams.video[0]
    tick = max(stream.time_base, clip.time_base)
    size = stream.codec_context.width, stream.codec_context.height
    aspect = (stream.sample_aspect_ratio or 1) / (clip.aspect or 1)
    packets = (p for p in container.demux(stream) if p.pts is not None)
    found = sorted(packet.pts * stream.time_base for packet in packets)
  wanted = [time * clip.time_base for time in clip.times]
  pairs = zip(found, wanted, strict=False)
  if (
    size != (clip.width, clip.height)
    or abs(aspect - 1) > 0.01
    or len(found) != len(wanted)
    or any(abs(a - found[0] - b + wanted[0]) > tick for a, b in pairs)
  ):
    raise ClipError(
      f'{path.suffix} does not hold the size, the times or the shape of pixels '
      f'of {clip.name} in this codec: write .mkv with --codec h264'
    )
