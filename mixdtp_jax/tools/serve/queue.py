"""Pictures that visitors send: restored one after the other."""

import dataclasses
import io
import itertools
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from absl import logging
from PIL import Image

from mixdtp_jax.restoration import encoding, sheets
from mixdtp_jax.restoration.batch import Settings, Work
from mixdtp_jax.restoration.folders import RESTORED, Job
from mixdtp_jax.restoration.pictures import open_picture
from mixdtp_jax.restoration.restorer import Restorer

MOST_BYTES = 2**28  # of one picture
_MOST_PICTURES = 32
_SENDING = 600  # seconds that sending a picture may take
# Seconds without a question after which a visitor is taken to be gone, before
# and after a picture is done. Pages in the background ask once a minute.
_PATIENCE, _KEPT = 300, 3600


class Refused(Exception):
  """A request that is not fulfilled; the message is for the visitor."""

  def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST):
    """Takes one line, and the status of the answer."""
    super().__init__(message)
    self.status = status


@dataclasses.dataclass(eq=False)
class Upload:
  """A picture that was sent, and what became of it."""

  name: str  # of the file, for people
  # Holds the file `picture` and, when it is done, `restored`, and both as a
  # small JPEG, `before` and `after`. Nobody can guess its name.
  folder: Path
  choice: tuple[str, int | None]  # weights and memory, as `Restorer` takes them
  state: str = 'sending'  # then waiting, working, done or failed
  progress: float = 0  # part that is restored, up to 1
  # Of the result, or its error.
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)
  # When its visitor last asked for it.
  asked: float = dataclasses.field(default_factory=time.monotonic)
  dropped: bool = False  # whether it is to be deleted

  @property
  def is_gone(self) -> bool:
    """Whether its visitor has not asked for long."""
    patience = _PATIENCE if self.state in ('waiting', 'working') else _KEPT
    return time.monotonic() > self.asked + patience

  def open(self, check: Callable[[int, int, int], None]) -> Work:
    """Reads the picture's header; `check` is as in `Settings`.

    `Refused` if the picture cannot be restored.
    """
    paths = self.folder / 'picture', self.folder / 'restored'
    # Nothing is read ahead: a picture that waits takes no memory.
    work = Work(Job(*paths, None, '', 0), Settings(ahead=0, check=check))
    work.open()
    self.check(work)
    return work

  def check(self, work: Work) -> None:
    """Raises `Refused` if the work has an error."""
    if error := work.error:
      for path in (work.job.source, work.job.target):
        error = error.replace(str(path), self.name)
      raise Refused(error.replace(' with --memory', ''))


class Queue:
  """Holds the pictures of all visitors, and restores one at a time.

  Visitors choose from `weights`, as `Restorer` takes them, and from `memories`,
  bytes by name; None is half of the free memory.
  """

  def __init__(
    self,
    folder: Path,
    weights: Sequence[str],
    memories: Mapping[str, int | None],
    max_megapixels: int,
    **options: Any,
  ):
    """Loads the first weights, whose errors are those of `mixdtp_jax.load`.

    `folder` is an empty one, for the pictures. Larger ones than
    `max_megapixels` are refused. `options` are further ones of `Restorer`.
    """
    self.weights, self.memories = weights, memories
    self._folder, self._most, self._options = folder, max_megapixels, options
    self._uploads: dict[str, Upload] = {}
    self._changed = threading.Condition()
    self._reading = threading.Lock()
    self._closed = False
    self._loaded: dict[tuple[str, int | None], Restorer] = {}
    self._restorer((weights[0], next(iter(memories.values()))))
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def close(self) -> None:
    """Ends the work, also on a picture that is being restored."""
    with self._changed:
      self._closed = True
      self._changed.notify()
    self._thread.join(20)

  def add(
    self, asked: Mapping[str, str], size: int, file: io.BufferedIOBase
  ) -> Upload:
    """Reads `size` bytes of a picture that a visitor sends, and queues it.

    `asked` has the name of the file, and the chosen weights and memory.

    Raises:
      Refused: the picture cannot be restored, there is no room for it, or there
        are no such weights or memory.
      OSError: the visitor is gone or too slow, or the disk is full.
    """
    weights, memory = asked.get('weights', ''), asked.get('memory', '')
    if weights not in self.weights or memory not in self.memories:
      raise Refused('there are no such weights, or no such memory, to choose')
    folder = self._folder / secrets.token_hex(16)
    choice = weights, self.memories[memory]
    upload = Upload(_printable(asked.get('name', '')), folder, choice)
    with self._changed:
      if len(self._uploads) >= _MOST_PICTURES:
        raise Refused(
          'the server holds as many pictures as it can: remove some, or wait',
          HTTPStatus.SERVICE_UNAVAILABLE,
        )
      self._uploads[folder.name] = upload
    try:
      folder.mkdir()
      _receive(file, size, folder / 'picture')
      with self._reading:  # some formats are read as a whole
        upload.open(self._check_size)
    except BaseException:
      self.drop(upload)
      raise
    with self._changed:
      upload.state, upload.asked = 'waiting', time.monotonic()
      self._changed.notify()
    return upload

  def get(self, key: str) -> Upload:
    """Returns a picture by its folder's name; notes that its visitor is there.

    `Refused` if there is none.
    """
    with self._changed:
      if upload := self._uploads.get(key):
        upload.asked = time.monotonic()
        return upload
    raise Refused(
      'the server no longer has this picture: send it again',
      HTTPStatus.NOT_FOUND,
    )

  def ahead(self, upload: Upload) -> int:
    """Returns how many pictures are restored before this one."""
    with self._changed:
      if upload.dropped:
        return 0
      earlier = itertools.takewhile(
        lambda other: other is not upload, self._uploads.values()
      )
      return sum(other.state in ('waiting', 'working') for other in earlier)

  def drop(self, upload: Upload) -> None:
    """Forgets a picture, and deletes its files."""
    with self._changed:
      upload.dropped = True
      self._uploads.pop(upload.folder.name, None)
      if upload.state == 'working':
        return  # `_run` does it when it has ended.
    shutil.rmtree(upload.folder, ignore_errors=True)

  def _check_size(self, height: int, width: int, frames: int) -> None:
    """Raises ValueError for too large a picture."""
    if max(height * width, frames // 4) > self._most * 10**6:
      total = f', or {frames:,} in all its frames,' if frames else ''
      raise ValueError(
        f'{width}x{height} pixels{total} are more than the {self._most} '
        'million that this server takes: make it smaller'
      )

  def _restorer(self, choice: tuple[str, int | None]) -> Restorer:
    """Returns the network; for its memory, the one before is forgotten."""
    if choice not in self._loaded:
      self._loaded.clear()
      weights, memory = choice
      self._loaded[choice] = Restorer(weights, memory=memory, **self._options)
    return self._loaded[choice]

  def _run(self) -> None:
    while True:
      for left in [u for u in list(self._uploads.values()) if u.is_gone]:
        self.drop(left)
      with self._changed:
        if self._closed:
          return
        waiting = [u for u in self._uploads.values() if u.state == 'waiting']
        if not waiting:
          self._changed.wait(30)
          continue
        upload = waiting[0]
        upload.state = 'working'
      state = 'failed'
      try:
        upload.facts, state = self._restored(upload), 'done'
      except Refused as error:
        upload.facts = {'error': str(error)}
      except Exception as error:  # noqa: BLE001  the server lives on
        if not self._closed:
          logging.exception('%s: %s', upload.name, error)
        why = f'{upload.name} could not be restored: {type(error).__name__}'
        upload.facts = {'error': why}
      with self._changed:
        upload.state = state
      if upload.dropped:
        self.drop(upload)

  def _restored(self, upload: Upload) -> dict[str, Any]:
    """Restores a picture and returns the facts of the result."""

    def tell(part: float) -> None:
      upload.progress = part
      if upload.dropped or upload.is_gone or self._closed:
        raise Refused('nobody waited for this picture: send it again')

    try:
      restorer = self._restorer(upload.choice)
    except (OSError, ValueError, MemoryError) as error:
      why = f'the weights could not be loaded: {error}'
      raise Refused(why.replace('\n', ' ')) from error
    work = upload.open(restorer.check)
    work.restore(restorer.restore, tell)
    work.write()
    upload.check(work)
    for name, shown in (('picture', 'before'), ('restored', 'after')):
      _shrink(upload.folder / name, upload.folder / shown)
    logging.info('%s: restored in %.1f s', upload.name, work.seconds)
    assert (picture := work.picture)
    return {
      'name': _result_name(upload.name, picture.format),
      'width': picture.width,
      'height': picture.height,
      'seconds': round(work.seconds, 1),
      'lost': work.lost,
    }


def _receive(file: io.BufferedIOBase, size: int, path: Path) -> None:
  """Writes a file while it arrives."""
  late = time.monotonic() + _SENDING
  with path.open('wb') as target:
    while size:
      data = file.read1(min(size, 2**20))
      if not data or time.monotonic() > late:
        raise ConnectionError('the visitor is gone or too slow')
      target.write(data)
      size -= len(data)


def _printable(name: str) -> str:
  """Returns a name of a file that is fit for people and for downloads."""
  name = name.replace('\\', '/').rpartition('/')[2]
  name = ''.join(c for c in name if c.isprintable()).strip(' .')
  return name[-100:] or 'picture'


def _result_name(name: str, format: str) -> str:
  path = Path(name)
  known = encoding.format_of(name) == format
  ending = path.suffix if known else encoding.ending_of(format)
  return f'{path.stem}{RESTORED}{ending}'


def _shrink(source: Path, target: Path) -> None:
  """Writes the first frame as a small JPEG, which every browser shows."""
  first = next(open_picture(source).frames())
  profile = first.metadata.icc
  options = {'icc_profile': profile} if profile[16:20] == b'RGB ' else {}
  small = Image.fromarray(sheets.small_rgb(first.pixels))
  small.save(target, format='JPEG', quality=92, subsampling=0, **options)
