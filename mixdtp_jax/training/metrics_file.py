"""metrics.jsonl: the scalars that a run logged, a line for each time.

A line is {"step": updates made, "minutes": of training, NAME: value, ...,
"crc32": of the rest}; values that are not finite are strings. Minutes add up
over the starts of a run, without pauses and without the time before the first
line of a start.
"""

import json
import math
import os
import pathlib
import time
import zlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from mixdtp_jax.runtime.files import DAMAGED, replacing

_NAME = 'metrics.jsonl'


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, float]]:
  """Reads the lines of a run; none if it has no such file.

  A last line without an end is still being written, or its process was killed:
  it does not count. ValueError if the file is damaged.
  """
  path = pathlib.Path(workdir, _NAME)
  if not path.is_file():
    return []
  *lines, _ = path.read_bytes().split(b'\n')
  return [_parse(line, f'{path}, line {n}') for n, line in enumerate(lines, 1)]


def _parse(line: bytes, place: str) -> dict[str, float]:
  try:
    content = json.loads(line)
    del content['crc32']
    values = {name: float(value) for name, value in content.items()}
    if _line(content) == line and values.keys() >= {'step', 'minutes'}:
      return values
  except DAMAGED:
    pass
  raise ValueError(
    f'{place}: damaged; remove the file, since the event files beside it hold '
    'the same'
  )


def _line(content: Mapping[str, Any]) -> bytes:
  crc32 = zlib.crc32(json.dumps(content).encode())
  return json.dumps({**content, 'crc32': crc32}).encode()


class MetricsFile:
  """Appends to metrics.jsonl; the first line of a start drops what it undoes.

  A start from update s discards lines after s. One that makes no update only
  evaluates.
  """

  def __init__(self, workdir: str | os.PathLike):
    """Writes nothing yet."""
    self._path = pathlib.Path(workdir, _NAME)
    self._start: float | None = None  # time of this start's first line
    self._before = 0.0  # minutes

  def append(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes a line; `scalars` has 'loss' if they are of an update."""
    now = time.time()
    if self._start is None:
      self._start = now
      self._drop(step - 1 if 'loss' in scalars else step)
    minutes = self._before + (now - self._start) / 60
    content = {'step': step, 'minutes': minutes} | {
      name: v if math.isfinite(v) else str(v)
      for name, v in ((n, float(v)) for n, v in scalars.items())
    }
    with open(self._path, 'ab') as file:
      file.write(_line(content) + b'\n')

  def _drop(self, step: int) -> None:
    """Keeps the lines up to an update; sets a damaged file aside."""
    try:
      lines = read_metrics(self._path.parent)
    except ValueError as error:
      os.replace(self._path, f'{self._path}.damaged')
      logging.warning('%s; it is now %s.damaged', error, self._path.name)
      return
    if self._path.is_file():  # perhaps with half a line
      self._before = lines[-1]['minutes'] if lines else 0.0
      kept = self._path.read_bytes().split(b'\n')[: len(lines)]
      pairs = zip(kept, lines, strict=True)
      kept = [text + b'\n' for text, line in pairs if line['step'] <= step]
      with replacing(self._path) as temporary:
        pathlib.Path(temporary).write_bytes(b''.join(kept))
