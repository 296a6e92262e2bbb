"""What runs logged, read back and compared with TensorBoard's own reader."""

import contextlib

import numpy as np
import pytest
from clu import metric_writers
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from mixdtp_jax.tools.runs.event_log import read_scalars
from mixdtp_jax.training import metrics_file
from mixdtp_jax.training.metrics_file import MetricsFile
from tests.campaigns import json_files


def _write_start(workdir, *logged):
  """A file of one start of chosen times: (seconds, step, name, value) each."""
  workdir.mkdir(exist_ok=True)
  number = len(list(workdir.iterdir()))
  path = workdir / f'events.out.tfevents.{9 - number}'
  with open(path, 'wb') as file:
    for seconds, step, name, value in logged:
      event = event_pb2.Event(wall_time=seconds, step=step)
      entry = event.summary.value.add(tag=name)
      entry.metadata.plugin_data.plugin_name = 'scalars'
      entry.tensor.dtype = 2  # double
      entry.tensor.double_val.append(value)
      data = event.SerializeToString()
      for part in (len(data).to_bytes(8, 'little'), data):
        file.write(part + masked_crc32c(part).to_bytes(4, 'little'))
  return path


def test_reads_what_tensorboard_reads(tmp_path):
  random = np.random.default_rng(0)
  with contextlib.closing(
    metric_writers.create_default_writer(str(tmp_path))
  ) as writer:
    for step in (1, 4, 8):
      scalars = {'loss': random.random(), 'eval/restored_rgb_psnr': np.inf}
      writer.write_scalars(step, scalars)
      picture = np.full((1, 8, 8, 3), step, np.uint8)
      writer.write_images(step, {'eval/restored': picture})
  want = event_accumulator.EventAccumulator(
    str(tmp_path), size_guidance={'tensors': 0}
  ).Reload()
  got = read_scalars(tmp_path)
  assert set(got) == {'loss', 'eval/restored_rgb_psnr'}
  for name, points in got.items():
    events = want.Tensors(name)
    assert [p.step for p in points] == [e.step for e in events] == [1, 4, 8]
    for point, event in zip(points, events, strict=True):
      value = np.frombuffer(event.tensor_proto.tensor_content, np.float32)
      assert point.value == value
      time = (event.wall_time - want.Tensors('loss')[0].wall_time) / 60
      assert point.minutes == pytest.approx(time, abs=1e-6)


def test_a_restart_replaces_what_it_undid(tmp_path):
  # Killed after update 8; continued after the checkpoint of update 4, and not
  # yet at 8 again.
  _write_start(
    tmp_path,
    *((1000 + 6 * s, s, 'loss', s / 10) for s in (1, 2, 4, 6, 8)),
    (1049, 4, 'eval/x', 40),
    (1050, 8, 'eval/x', 80),
  )
  _write_start(tmp_path, *((9000 + 6 * s, s, 'loss', s / 100) for s in (5, 6)))
  got = read_scalars(tmp_path)
  assert [(p.step, p.value) for p in got['loss']] == [
    (1, 0.1), (2, 0.2), (4, 0.4), (5, 0.05), (6, 0.06),
  ]  # fmt: skip
  # The evaluation at the checkpoint is of the state that goes on.
  assert [(p.step, p.value) for p in got['eval/x']] == [(4, 40)]
  # 44 s until the kill, not the 2 h of pause, then 6 s.
  minutes = [60 * p.minutes for p in got['loss']]
  np.testing.assert_allclose(minutes, [0, 6, 18, 44, 50])


def test_a_start_at_the_end_only_evaluates_again(tmp_path):
  _write_start(
    tmp_path, (0, 1, 'loss', 1), (60, 8, 'loss', 2), (66, 8, 'eval/x', 3)
  )
  _write_start(tmp_path, (999, 8, 'eval/x', 4), (1002, 8, 'eval/y', 5))
  got = read_scalars(tmp_path)
  assert [(p.step, p.value) for p in got['loss']] == [(1, 1), (8, 2)]
  assert got['eval/x'] == [(8, pytest.approx(1.1), 4)]
  assert got['eval/y'] == [(8, pytest.approx(1.15), 5)]


def test_a_tag_that_was_undone_entirely_is_gone(tmp_path):
  _write_start(tmp_path, (0, 1, 'loss', 1), (1, 5, 'eval/x', 3))
  _write_start(tmp_path, (9, 1, 'loss', 2))
  assert list(read_scalars(tmp_path)) == ['loss']


def test_a_last_record_that_is_not_whole_is_left_out(tmp_path):
  path = _write_start(tmp_path, (0, 1, 'loss', 1), (6, 2, 'loss', 2))
  whole = path.read_bytes()
  for missing in (1, 5, 40):
    path.write_bytes(whole[:-missing])
    assert read_scalars(tmp_path) == {'loss': [(1, 0, 1)]}
  # A start that has not logged anything yet does not count.
  (tmp_path / 'events.out.tfevents.0').write_bytes(b'')
  assert len(read_scalars(tmp_path)['loss']) == 1


def test_errors_name_the_file(tmp_path):
  for workdir in (tmp_path, tmp_path / 'none'):
    with pytest.raises(FileNotFoundError, match=f'{workdir}: no metrics'):
      read_scalars(workdir)


class _Clock:
  """Stands for the module `time`."""

  def __init__(self):
    self.now = 0.0

  def time(self):
    return self.now


def _start(workdir, monkeypatch, *logged):
  """A start that logs into metrics.jsonl: (seconds, step, name, value) each."""
  monkeypatch.setattr(metrics_file, 'time', clock := _Clock())
  file = MetricsFile(workdir)
  for clock.now, step, name, value in logged:
    file.append(step, {name: value})


def test_lines_tell_what_event_files_tell(tmp_path, monkeypatch):
  first = [(1000 + 6 * s, s, 'loss', s / 10) for s in (1, 2, 4, 6, 8)]
  first += [(1049, 4, 'eval/x', 40.0), (1050, 8, 'eval/x', float('inf'))]
  second = [(9000 + 6 * s, s, 'loss', s / 100) for s in (5, 6)]
  events, lines = tmp_path / 'events', tmp_path / 'lines'
  lines.mkdir()
  for start in (first, second):
    _write_start(events, *start)
    _start(lines, monkeypatch, *start)
  assert read_scalars(lines) == {
    name: [(p.step, pytest.approx(p.minutes), p.value) for p in points]
    for name, points in read_scalars(events).items()
  }
  # A line that is not whole yet does not count.
  path = lines / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-3])
  assert [p.step for p in read_scalars(lines)['loss']] == [1, 2, 4, 5]
  _start(lines, monkeypatch, (0, 6, 'loss', 7.0))
  assert read_scalars(lines)['loss'][-1].value == 7


def test_a_run_that_an_older_version_began_has_its_event_files(
  tmp_path, monkeypatch
):
  _write_start(tmp_path, (0, 1, 'loss', 1), (6, 2, 'loss', 2))
  _write_start(tmp_path, (9, 3, 'loss', 3))
  _start(tmp_path, monkeypatch, (9, 3, 'loss', 3.0))
  assert [p.step for p in read_scalars(tmp_path)['loss']] == [1, 2, 3]


def test_no_damage_gives_other_numbers_or_an_error_without_a_name(tmp_path):
  for kind, seen in json_files.run(200, tmp_path).items():
    assert seen['other'] == 0, kind
    assert seen['refused'] > 20, kind
