"""Reads the scalars that a training run logged for TensorBoard."""

import os
import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2
from tensorboard.util import tensor_util


class Point(NamedTuple):
  """A value logged after `step` updates and `minutes` of training."""

  step: int
  minutes: float
  value: float


class _Logged(NamedTuple):
  name: str
  step: int
  time: float  # seconds
  value: float


def read_scalars(workdir: str | os.PathLike) -> dict[str, list[Point]]:
  """Reads the scalars of a run by name, in ascending order of their steps.

  Every start of the run wrote a file. A restart from update s discards
  everything logged after s by earlier starts. Of a step that was logged twice,
  the last value counts.

  Minutes count from a start's first scalar on and add up over the starts, with
  the time of lost work, but without pauses, preparing data and compiling.

  Raises:
    FileNotFoundError: there are no scalars.
    ValueError: a file is damaged.
  """
  paths = pathlib.Path(workdir).glob('events.out.tfevents.*')
  starts = filter(None, map(_read, paths))
  curves: dict[str, dict[int, Point]] = {}
  spent = 0.0
  for logged in sorted(starts, key=lambda start: start[0].time):
    continued = _continued_step(logged)
    for name, points in curves.items():
      curves[name] = {s: p for s, p in points.items() if s <= continued}
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
  """Returns the number of updates made before a start."""
  trained = [entry.step for entry in logged if entry.name == 'loss']
  # A start logs its first update. A start without updates only evaluated.
  return min(trained) - 1 if trained else logged[0].step


def _read(path: pathlib.Path) -> list[_Logged]:
  try:
    events = map(event_pb2.Event.FromString, _records(path.read_bytes()))
    return [
      _Logged(
        value.tag,
        event.step,
        event.wall_time,
        float(tensor_util.make_ndarray(value.tensor)),
      )
      for event in events
      for value in event.summary.value
      if value.metadata.plugin_data.plugin_name == 'scalars'
    ]
  except DecodeError as error:
    raise ValueError(f'{path} is damaged: remove it') from error


def _records(content: bytes) -> Iterator[bytes]:
  """Yields the records of a TFRecord file: length, its CRC, bytes, their CRC.

  TensorBoard's reader computes the CRCs in Python, or imports TensorFlow. An
  incomplete last record is still being written, or its process was killed.
  """
  start = 12  # bytes: uint64 length and uint32 CRC
  while start <= len(content):
    (length,) = struct.unpack_from('<Q', content, start - 12)
    end = start + length
    if end + 4 > len(content):
      return
    yield content[start:end]
    start = end + 4 + 12
