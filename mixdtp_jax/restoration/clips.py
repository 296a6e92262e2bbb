"""The one reader of video files: frames with their times, as upright pixels.

A clip is decoded as a whole before its first frame is restored. So damage is
found before the work, and the number of frames and their times are known.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from mixdtp_jax.data import images

# The muxers that state how long a file is, rather than estimating it.
_STATES_DURATION = ('mov', 'matroska', 'avi', 'flv', 'asf', 'mxf')
# Of ITU-T H.273, as FFmpeg numbers it.
_HDR = {16: 'PQ', 18: 'HLG'}
_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)  # that swscale converts; 2: not tagged
_BT709, _BT601, _UNTAGGED = 1, 6, 2
FULL_RANGE = 2
_MAX_PIXELS = str(images.MAX_PIXELS)
# By (a, b, c, d) of a display matrix: the orientation, as in EXIF.
_TURNS = {
  (1, 0, 0, 1): 1,
  (-1, 0, 0, 1): 2,
  (-1, 0, 0, -1): 3,
  (1, 0, 0, -1): 4,
  (0, 1, 1, 0): 5,
  (0, 1, -1, 0): 6,
  (0, -1, -1, 0): 7,
  (0, -1, 1, 0): 8,
}


class ClipError(ValueError):
  """A clip that cannot be used; the message names it and says why."""


@dataclasses.dataclass(frozen=True)
class Clip:
  """A clip, or a part of it, that was decoded."""

  path: Path
  stream: int  # index of the video stream
  height: int  # of the upright frames, in pixels
  width: int
  orientation: int  # how the stored frames lie, 1 to 8 as in EXIF
  format: str  # FFmpeg's name of the frames' pixel format
  depth: int  # bits for each sample
  alpha: bool  # whether frames are transparent in places
  # Colour space, range, transfer and primaries, as FFmpeg numbers them.
  tags: tuple[int, int, int, int]
  aspect: Fraction | None  # width of an upright pixel / its height, if known
  interlaced: bool  # whether a frame has two fields of different times
  rate: Fraction  # frames a second, on average
  time_base: Fraction  # the unit of times, in seconds
  skipped: int = 0  # number of frames before the part
  times: tuple[int, ...] = ()  # of the frames, increasing
  last: int = 0  # duration of the last frame
  start: Fraction | None = None  # seconds, of the first frame of a part
  end: Fraction | None = None  # seconds, of the cut; None for none

  @property
  def name(self) -> str:
    """A printable name."""
    return images.name_of(self.path)

  @property
  def matrix(self) -> int:
    """The matrix between YUV and RGB: a guess by the size if not tagged."""
    if self.tags[0] in (0, _UNTAGGED):
      return _BT709 if min(self.height, self.width) >= 720 else _BT601
    return self.tags[0]

  @property
  def layout(self) -> str:
    """FFmpeg's name of the format that frames are restored in."""
    if self.depth > 8:
      return 'rgba64le' if self.alpha else 'rgb48le'
    return 'rgba' if self.alpha else 'rgb24'


def is_video(path: Path) -> bool:
  """Returns whether the content of a file is a video with its own frames."""
  with contextlib.suppress(av.FFmpegError, ValueError), opened(path) as found:
    # These read texts and pictures.
    others = found.format.name.endswith(('_pipe', 'image2', 'tty'))
    return not others and bool(_moving(found))
  return False


def opened(path: Path, format: str | None = None) -> Any:
  """Opens a video file, which may not refer to addresses."""
  options = {'protocol_whitelist': 'file', 'max_pixels': _MAX_PIXELS}
  return av.open(
    f'file:{path}', format=format, options=options, metadata_errors='replace'
  )


def survey(
  path: Path,
  start: Fraction | None,
  end: Fraction | None,
  check: Callable[[Clip], None],
) -> Clip:
  """Decodes a clip, or its part between two times in seconds.

  What follows that part is not read. `check` is called with the clip as its
  first frame shows it, and may raise ClipError.

  Raises:
    ClipError: the file cannot be decoded, is damaged or cut short, is HDR, or
      has no frames in that part.
  """
  with _reading(path) as (container, stream):
    origin = Fraction(container.start_time or 0, 10**6)
    clip: Clip | None = None
    times, skipped, last = list[int](), 0, 0
    time: int | None = None
    for frame in _frames(container, stream, whole=end is None):
      found = _describe(frame, stream, path)
      if clip is None:
        check(found)
        clip = found
      if _kind(found) != _kind(clip):
        raise ClipError(
          f'changes from {_kind(clip)} to {_kind(found)} after '
          f'{skipped + len(times):,} frames: split it there'
        )
      step = max(1, round(1 / clip.rate / clip.time_base))
      # AVI has the order of decoding alone.
      now = frame.dts if container.format.name == 'avi' else frame.pts
      if time is not None:  # later than before, whatever a damaged file says
        now = max(time + (step if now is None else 1), now or 0)
      time = now or 0
      seconds = time * clip.time_base - origin
      if end is not None and seconds >= end:
        break
      if start is not None and seconds + Fraction(1, 10**6) < start:
        skipped += 1
        continue
      times.append(time)
      last = frame.duration or step
    if end is None and times and stream.duration:
      stated = (stream.start_time or 0) + stream.duration - times[-1]
      last = stated if stated > 0 else last
    if clip is None or not times:
      raise ClipError(
        'has no frames' + ' between --start and --end' * bool(clip)
      )
  return dataclasses.replace(
    clip,
    skipped=skipped,
    times=tuple(times),
    last=last,
    start=None if start is None else times[0] * clip.time_base,
    end=None if end is None else end + origin,
  )


def read(clip: Clip, done: int = 0) -> Iterator[np.ndarray]:
  """Yields the frames of a clip, upright, without the first `done` ones.

  Each is (H, W, C) uint8, or uint16 if it has more than 8 bits for each sample;
  C is 3, or 4 with alpha.
  """
  first = clip.skipped + done
  end = clip.skipped + len(clip.times)
  with _reading(clip.path) as (container, stream):
    frames = _frames(container, stream, whole=False)
    for frame in itertools.islice(frames, first, end):
      if not frame.format.is_rgb:
        frame.colorspace = clip.matrix
      pixels = convert(frame, clip.layout).to_ndarray()
      yield images.turned(pixels, clip.orientation)


def convert(frame: Any, format: str, **options: Any) -> Any:
  """Returns a frame in another pixel format; RGB is of full range."""
  # Exact, and with colours for each pixel.
  how = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
  how |= Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
  options.setdefault('dst_color_range', ColorRange.JPEG)
  return frame.reformat(format=format, interpolation=how, **options)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[Any, Any]]:
  """Opens a file and its video stream; errors become one line with its name."""
  name = images.name_of(path)
  try:
    if not path.is_file():
      raise ClipError('is not a file, or not there any more')
    if not path.stat().st_size:
      raise ClipError('is empty')
    with opened(path) as container:
      if container.format.name in ('concat', 'dash', 'hls'):
        raise ClipError('is no video but a list of files: name these')
      if not (streams := _moving(container)):
        raise ClipError('has no video')
      if streams[0].codec_context is None:
        raise ClipError('is of a codec that PyAV does not read')
      streams[0].codec_context.options = {'max_pixels': _MAX_PIXELS}
      yield container, streams[0]
  except MemoryError:
    raise
  except ClipError as error:
    raise ClipError(f'{name} {error}') from error.__cause__
  except av.PermissionError as error:
    raise ClipError(f'{name} cannot be read: {error.strerror}') from error
  # Damaged data can have any value, and PyAV refuses some with other errors.
  except (av.FFmpegError, ValueError, ArithmeticError, LookupError) as error:
    reason = getattr(error, 'strerror', '') or str(error)
    raise ClipError(
      f'{name} cannot be decoded ({reason}): it is no video, or damaged'
    ) from error


def _moving(container: Any) -> list[Any]:
  """Returns the video streams that are no cover pictures."""
  cover = av.stream.Disposition.attached_pic
  return [s for s in container.streams.video if not s.disposition & cover]


def _frames(container: Any, stream: Any, whole: bool) -> Iterator[Any]:
  """Decodes the frames of a stream; with `whole`, all that the file states.

  Raises ClipError if something is damaged or missing.
  """
  first = last = None
  for packet in container.demux():
    if packet.pts is not None:
      begin = packet.pts * packet.time_base
      finish = begin + (packet.duration or 0) * packet.time_base
      first = begin if first is None else min(first, begin)
      last = finish if last is None else max(last, finish)
    frames = packet.decode() if packet.stream is stream else ()
    if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
      at = float((last or 0) - (first or 0))
      raise ClipError(
        f'is damaged or cut short at about {at:.1f} s: get it again, or stop '
        'before that by --end'
      )
    yield from frames
  kind = container.format.name.partition(',')[0]
  # FFmpeg takes the length of ASF only if the size of the file fits.
  if whole and kind == 'asf' and container.duration is None and last:
    raise ClipError(
      'is cut short, or a live recording: get it again, or restore what is '
      f'there by --end {float(last - first):.3f}'
    )
  stated = Fraction(container.duration or 0, 10**6)
  if kind == 'avi' and stream.average_rate:
    # A cut file's duration is short, too; its header counts all frames.
    stated = max(stated, stream.frames / stream.average_rate)
  if whole and kind in _STATES_DURATION and last:
    # Matroska counts from 0, also if the first frame is later.
    missing = stated - max(last, last - first)
    if missing > max(Fraction(1, 4), 3 / (stream.average_rate or 12)):
      raise ClipError(
        f'is cut short: {float(missing):.1f} s of '
        f'{float(stated):.1f} s are missing; get it again, or '
        f'restore what is there by --end {float(last - first):.3f}'
      )


def _describe(frame: Any, stream: Any, path: Path) -> Clip:
  """Describes a frame; ClipError if its kind is not restored."""
  sides = {data.type.name: data for data in frame.side_data}
  hdr = _HDR.get(frame.color_trc)
  if 'DOVI_METADATA' in sides or 'DOVI_RPU_BUFFER' in sides:
    hdr = 'Dolby Vision'
  if hdr:
    raise ClipError(
      f'is HDR ({hdr}), and the networks know standard range alone: convert '
      'it to SDR'
    )
  if stream.metadata.get('alpha_mode') == '1':
    raise ClipError(
      'is transparent in places (VP8 or VP9), which is not read: convert it to '
      'FFV1'
    )
  if frame.colorspace not in _MATRICES:
    raise ClipError(
      f'has colours of matrix {frame.colorspace} (ITU-T H.273), which is not '
      'read: convert it to BT.709'
    )
  how = _orientation(sides.get('DISPLAYMATRIX'))
  height, width = frame.height, frame.width
  aspect = stream.sample_aspect_ratio  # the container's, if it has one
  if how >= 5:
    height, width, aspect = width, height, aspect and 1 / aspect
  samples = frame.format.components
  rate = stream.average_rate or stream.guessed_rate or Fraction(25)
  return Clip(
    path=path,
    stream=stream.index,
    height=height,
    width=width,
    orientation=how,
    format='rgb24' if frame.format.has_palette else frame.format.name,
    depth=max(sample.bits for sample in samples),
    alpha=any(sample.is_alpha for sample in samples),
    tags=(
      frame.colorspace,
      FULL_RANGE if frame.format.name.startswith('yuvj') else frame.color_range,
      frame.color_trc,
      frame.color_primaries,
    ),
    aspect=aspect or None,
    interlaced=stream.codec_context.field_order > 1,
    rate=Fraction(min(max(rate, Fraction(1, 100)), 1000)).limit_denominator(
      1001
    ),
    time_base=stream.time_base,
  )


def _kind(clip: Clip) -> str:
  turned = ', turned' * (clip.orientation > 1)
  return f'{clip.width}x{clip.height} pixels of {clip.format}{turned}'


def _orientation(side: Any) -> int:
  if side is None:
    return 1
  matrix = np.frombuffer(bytes(side), '<i4')[[0, 1, 3, 4]] / 65536
  turn = tuple(matrix.round().astype(int).tolist())
  if turn not in _TURNS or abs(matrix - turn).max() > 0.01:
    raise ClipError(
      'is shown turned by no multiple of 90 degrees: turn it first'
    )
  return _TURNS[turn]
