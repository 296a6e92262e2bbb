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


def read_scalars(workdir: str | os.PathLike) -> dict[str, list[Point]]:
  """Reads the scalars of a run by name, in ascending order of their steps.

  They are in metrics.jsonl, or of a run that an older version began in the
  event files for TensorBoard. Of a step that was logged twice, the last value
  counts. Minutes count as in `training.metrics_file`. FileNotFoundError if
  there are no scalars, ValueError if a file is damaged.
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
  """Reads the event files, one of each start.

  A start from update s discards everything that earlier ones logged after s.
  """
  paths = pathlib.Path(workdir).glob('events.out.tfevents.*')
  starts = [logged for path in paths if (logged := _read(path))]
  curves: dict[str, dict[int, Point]] = {}
  spent = 0.0
  for logged in sorted(starts, key=lambda start: start[0][1].minutes):
    first, last = logged[0][1], logged[-1][1]
    # A start logs its first update. A start without updates only evaluated.
    trained = [point.step for name, point in logged if name == 'loss']
    continued = min(trained) - 1 if trained else first.step
    for name, points in curves.items():
      curves[name] = {s: p for s, p in points.items() if s <= continued}
    for name, point in logged:
      point = point._replace(minutes=spent + point.minutes - first.minutes)
      curves.setdefault(name, {})[point.step] = point
    spent += last.minutes - first.minutes
  return curves


def _read(path: pathlib.Path) -> list[tuple[str, Point]]:
  """Returns names and values; their minutes are those of the clock."""
  logged = []
  try:
    for record in _records(path):
      event = event_pb2.Event.FromString(record)
      for scalar in event.summary.value:
        if scalar.metadata.plugin_data.plugin_name == 'scalars':
          value = float(tensor_util.make_ndarray(scalar.tensor))
          point = Point(event.step, event.wall_time / 60, value)
          logged.append((scalar.tag, point))
  except (DecodeError, errors.DataLossError, TypeError, ValueError) as error:
    raise ValueError(f'{path} is damaged: remove it') from error
  return logged


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
