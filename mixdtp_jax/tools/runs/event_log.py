"""The scalars that a training run logged for TensorBoard, read back.

The files are read without TensorFlow, which takes seconds to import.
"""

import os
import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2
from tensorboard.util import tensor_util


class Point(NamedTuple):
  """A scalar after `step` updates and `minutes` of training."""

  step: int
  minutes: float
  value: float


class _Logged(NamedTuple):
  name: str
  step: int
  time: float  # seconds
  value: float


def read_scalars(workdir: str | os.PathLike) -> dict[str, list[Point]]:
  """The scalars of a run by name, each in ascending order of its steps.

  Every start of the run wrote a file. A start that continued after update s
  replaces what earlier ones logged after s, whether it came that far again or
  not: that state was lost with the process that made it. Of a step that was
  logged twice, the last value counts.

  Minutes are the sum over the starts of the time since a start's first
  scalar, so that neither the pauses between them nor preparing the data and
  compiling the update count. Work that was lost was time spent and does count.

  Raises:
    FileNotFoundError: there are no scalars.
    ValueError: a file is damaged.
  """
  paths = pathlib.Path(workdir).glob('events.out.tfevents.*')
  starts = [list(_read(path)) for path in paths]
  curves: dict[str, dict[int, Point]] = {}
  spent = 0.0
  for logged in sorted(filter(None, starts), key=lambda start: start[0].time):
    continued = _continued_step(logged)
    for points in curves.values():
      for step in [step for step in points if step > continued]:
        del points[step]
    for name, step, time, value in logged:
      minutes = (spent + time - logged[0].time) / 60
      curves.setdefault(name, {})[step] = Point(step, minutes, value)
    spent += logged[-1].time - logged[0].time
  if not curves:
    raise FileNotFoundError(
      f'{workdir}: no metrics there; give the workdir of a training run, and '
      'wait until it has made its first update'
    )
  return {
    name: [points[step] for step in sorted(points)]
    for name, points in curves.items()
    if points
  }


def _continued_step(logged: list[_Logged]) -> int:
  """Updates that had been made when a start began."""
  trained = [entry.step for entry in logged if entry.name == 'loss']
  # A start always logs its first update. One without updates evaluated only.
  return min(trained) - 1 if trained else logged[0].step


def _read(path: pathlib.Path) -> Iterator[_Logged]:
  for record in _records(path):
    try:
      event = event_pb2.Event.FromString(record)
    except DecodeError as error:
      raise ValueError(f'{path} is damaged: remove it') from error
    for value in event.summary.value:
      if value.metadata.plugin_data.plugin_name == 'scalars':
        number = float(tensor_util.make_ndarray(value.tensor))
        yield _Logged(value.tag, event.step, event.wall_time, number)


def _records(path: pathlib.Path) -> Iterator[bytes]:
  """The records of a TFRecord file: length, its CRC, the bytes, their CRC.

  A last record that is not whole is still being written, or its process was
  killed.
  """
  content = path.read_bytes()
  start = 12  # bytes: uint64 length and uint32 CRC
  while start <= len(content):
    (length,) = struct.unpack_from('<Q', content, start - 12)
    end = start + length
    if end + 4 > len(content):
      return
    yield content[start:end]
    start = end + 4 + 12
