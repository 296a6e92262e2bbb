"""Many pictures: one is read and one written while another is restored."""

import collections
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np

from mixdtp_jax.data.images import ImageError, name_of
from mixdtp_jax.restoration import sheets
from mixdtp_jax.restoration.encoding import (
  check_alpha,
  check_room,
  encode,
  lost,
)
from mixdtp_jax.restoration.folders import Job
from mixdtp_jax.restoration.metadata import Metadata
from mixdtp_jax.restoration.pictures import Frame, Picture, open_picture
from mixdtp_jax.runtime.files import replacing

# Pixels (H, W, C) uint8 or uint16, and a function to tell the progress to.
Restore = Callable[[np.ndarray, Callable[[float], None]], np.ndarray]

STDIN = 'standard input'
_WRITERS = 2  # encoding a PNG may take longer than restoring the next picture
# A picture that is read and two that are written take the memory of so many
# that are kept, as encoders of AVIF take 60 bytes a pixel, of WebP 40.
BESIDE = 10
_HUNGRY = ('AVIF', 'HEIF', 'WEBP')  # one takes more than restoring


@dataclasses.dataclass(frozen=True)
class Settings:
  """How pictures are read and written."""

  quality: int | None = None  # 1 to 100; None for about that of the source
  keep_metadata: bool = True  # EXIF, ICC profile and XMP
  overwrite: bool = False
  ahead: int = 10_000_000  # most pixels of a picture that is read in advance
  # (height, width, kept) -> None; ValueError if the memory is too small for a
  # picture of that size, and this number of pixels of other frames.
  check: Callable[[int, int, int], None] = lambda height, width, kept: None


def _step(method: Callable[..., None]) -> Callable[..., None]:
  """Makes a step of `Work`: skipped after an error, and keeping its own."""

  @functools.wraps(method)
  def step(work: 'Work', *args) -> None:
    if work.error:
      return
    try:
      method(work, *args)
    except ImageError as error:
      work.error = str(error)
    except OSError as error:
      place = Path(error.filename or work.job.target or 'standard output')
      work.error = f'{name_of(place)}: {error.strerror or error}'
    except (ValueError, MemoryError) as error:
      reason = str(error) or 'there is too little memory'
      work.error = f'{name_of(work.job.source, STDIN)}: {reason}'

  return step


@dataclasses.dataclass
class Work:
  """A picture on its way; after an error nothing more is done to it."""

  job: Job
  settings: Settings
  error: str = ''  # one line that names the file
  picture: Picture | None = None  # None before it is opened
  seconds: float = 0  # that restoring took, without reading and writing
  lost: str = ''  # what the written file should have and has not
  _frames: Sequence[Frame] | None = None  # None: read when they are restored
  _before: np.ndarray | None = None  # of the sheet

  @_step
  def open(self) -> None:
    """Reads the header, and the pixels unless they are many."""
    picture = open_picture(self.job.source, STDIN)
    size, single, others = picture.largest, picture.count == 1, True
    ahead = self.settings.ahead
    if not self.job.kept:
      check_room(picture, self.job.format)
      # All frames are kept until they are written.
      hungry = (self.job.format or picture.format) in _HUNGRY
      kept = 0 if single and not hungry else picture.pixels
      self.settings.check(*size, kept)
      try:
        self.settings.check(*size, BESIDE * ahead)
      except ValueError:
        others = False
    self.picture = picture
    if single and others and picture.pixels <= ahead:
      self._frames = list(picture.frames())

  @_step
  def restore(
    self, restore: Restore, progress: Callable[[float], None]
  ) -> None:
    """Restores all frames; reads the first if only the sheet is missing."""
    assert self.picture
    start, count = time.perf_counter(), self.picture.count
    frames: Iterable[Frame] = self._frames or self.picture.frames()
    if count == 1:
      frames = list(frames)  # which closes the file
    restored: list[Frame] = []
    self._frames = None
    for number, frame in enumerate(frames):
      if self.job.sheet and not number:
        self._before = sheets.small_rgb(frame.pixels)
      if self.job.kept:
        assert self.job.target
        self._frames = [next(open_picture(self.job.target).frames())]
        return
      format = self.job.format or self.picture.format
      check_alpha(frame.pixels, self.picture.name, format)

      def part(fraction: float, number=number) -> None:
        progress((number + fraction) / count)

      pixels = restore(frame.pixels, part)
      restored.append(frame._replace(pixels=pixels))
    self._frames, self.seconds = restored, time.perf_counter() - start

  @_step
  def write(self) -> None:
    """Writes the file, and the sheet."""
    assert self.picture and self._frames
    first = self._frames[0]
    if not self.job.kept:
      kept = first.metadata if self.settings.keep_metadata else Metadata()
      format, quality = self.job.format, self.settings.quality
      data = encode(
        self.picture, self._frames, kept, format=format, quality=quality
      )
      self.lost = lost(self.picture, kept, format, first.pixels.shape[2])
      self._save(self.job.target, data)
    if self.job.sheet and self._before is not None:
      after = sheets.small_rgb(first.pixels)
      self._save(self.job.sheet, sheets.encode_pair(self._before, after))

  def _save(self, path: Path | None, data: bytes) -> None:
    if path is None:
      sys.stdout.buffer.write(data)
      sys.stdout.buffer.flush()
      return
    # Names that differ only in case are one file on some systems.
    if path.exists() and not self.settings.overwrite:
      raise ImageError(
        f'{name_of(path)} exists by now: --overwrite replaces it'
      )
    with replacing(path) as temporary:
      Path(temporary).write_bytes(data)


def restore_files(
  jobs: Sequence[Job],
  restore: Restore,
  settings: Settings,
  progress: Callable[[float], None],
) -> Iterator[Work]:
  """Restores pictures, and yields each when it is written or has an error.

  Whatever ends this early, each file is written whole or not at all. `restore`
  restores the pixels of one frame; `progress` is called with the part of all
  the work that is done, up to 1.
  """
  total, done = sum(job.size for job in jobs) or 1, 0
  writing: collections.deque[tuple[Work, futures.Future]]
  writing = collections.deque()
  with (
    futures.ThreadPoolExecutor(1) as reader,
    futures.ThreadPoolExecutor(_WRITERS) as writer,
  ):

    def begin(job: Job) -> tuple[Work, futures.Future]:
      work = Work(job, settings)
      return work, reader.submit(work.open)

    begun = map(begin, jobs)
    following = next(begun, None)
    while following:
      work, opening = following
      opening.result()
      alone = work._frames is None  # it is large: memory is for it alone
      if alone:
        yield from _written(writing, 0)
      else:
        following = next(begun, None)

      def part(fraction: float, done=done, size=work.job.size) -> None:
        progress((done + fraction * size) / total)

      work.restore(restore, part)
      done += work.job.size
      progress(done / total)
      writing.append((work, writer.submit(work.write)))
      yield from _written(writing, 0 if alone else _WRITERS)
      if alone:
        following = next(begun, None)
    yield from _written(writing, 0)


def _written(writing: collections.deque, most: int) -> Iterator[Work]:
  """Yields what is written, until at most this number is left."""
  while writing and (len(writing) > most or writing[0][1].done()):
    work, future = writing.popleft()
    future.result()
    yield work
