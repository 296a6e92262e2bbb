"""Reads the scalars that a training run logged."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (
  PyRecordReader_New,
)
from tensorboard.util import tensor_util

from mixdtp_jax.training.metrics_file import read_metrics


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

  They are in metrics.jsonl, or of a run that an older version began in the
  event files for TensorBoard. Of a step that was logged twice, the last value
  counts. A restart from update s discards everything logged after s by earlier
  starts. Minutes count as in `training.metrics_file`.

  Raises:
    FileNotFoundError: there are no scalars.
    ValueError: a file is damaged.
  """
  curves: dict[str, dict[int, Point]] = {}
  lines = read_metrics(workdir)
  if lines and lines[0]['step'] <= 1:
    for line in lines:
      step, minutes = int(line.pop('step')), line.pop('minutes')
      for name, value in line.items():
        curves.setdefault(name, {})[step] = Point(step, minutes, value)
  else:
    curves = _read_events(workdir)
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


def _read_events(workdir: str | os.PathLike) -> dict[str, dict[int, Point]]:
  """Reads the event files, one of each start."""
  paths = pathlib.Path(workdir).glob('events.out.tfevents.*')
  starts = [logged for path in paths if (logged := _read(path))]
  curves: dict[str, dict[int, Point]] = {}
  spent = 0.0
  for logged in sorted(starts, key=lambda start: start[0].time):
    # A start logs its first update. A start without updates only evaluated.
    trained = [entry.step for entry in logged if entry.name == 'loss']
    continued = min(trained) - 1 if trained else logged[0].step
    for name, points in curves.items():
      curves[name] = {s: p for s, p in points.items() if s <= continued}
    for name, step, time, value in logged:
      minutes = (spent + time - logged[0].time) / 60
      curves.setdefault(name, {})[step] = Point(step, minutes, value)
    spent += logged[-1].time - logged[0].time
  return curves


def _read(path: pathlib.Path) -> list[_Logged]:
  try:
    return [
      _Logged(
        value.tag,
        event.step,
        event.wall_time,
        float(tensor_util.make_ndarray(value.tensor)),
      )
      for event in map(event_pb2.Event.FromString, _records(path))
      for value in event.summary.value
      if value.metadata.plugin_data.plugin_name == 'scalars'
    ]
  except (DecodeError, errors.DataLossError, TypeError, ValueError) as error:
    raise ValueError(f'{path} is damaged: remove it') from error


def _records(path: pathlib.Path) -> Iterator[bytes]:
  """Yields the records of a TFRecord file, except an incomplete last one."""
  reader = PyRecordReader_New(str(path))
  while True:
    try:
      reader.GetNext()
    except errors.OutOfRangeError:
      return
    except errors.DataLossError as error:
      if 'truncated record' in error.message:
        return
      raise
    yield reader.record()
