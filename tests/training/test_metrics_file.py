"""metrics.jsonl; tests/tools/test_event_log.py reads it beside event files."""

import pytest

from mixdtp_jax.training.metrics_file import MetricsFile, read_metrics


def test_a_damaged_file_does_not_keep_a_run_from_going_on(tmp_path, caplog):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 1, "minutes": 0}\n')
  with pytest.raises(
    ValueError, match='metrics.jsonl, line 1: damaged; remove'
  ):
    read_metrics(tmp_path)
  # Two lines that lost what was between them, and a number without end.
  for number in ('1, "step": 2', '9' * 400):
    path.write_text(f'{{"step": {number}, "minutes": 0, "crc32": 1}}\n')
    with pytest.raises(ValueError, match='line 1: damaged'):
      read_metrics(tmp_path)
  MetricsFile(tmp_path).append(1, {'loss': 1.0})
  assert 'it is now metrics.jsonl.damaged' in caplog.text
  assert read_metrics(tmp_path) == [{'step': 1, 'minutes': 0, 'loss': 1}]


def test_the_first_line_may_be_torn(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "min')
  MetricsFile(tmp_path).append(1, {'loss': 1.0})
  assert read_metrics(tmp_path) == [{'step': 1, 'minutes': 0, 'loss': 1}]
