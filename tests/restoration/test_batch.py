"""Many pictures: read, restored and written at the same time."""

import pathlib
import threading
import time

from mixdtp_jax.restoration import batch
from tests.helpers.derain import put


def test_reading_and_writing_overlap_with_restoring(monkeypatch, tmp_path):
  """Each of three threads waits for another one's work to begin."""
  monkeypatch.chdir(tmp_path)
  jobs = []
  for number in range(4):
    path = put(f'{number}.png')
    target = pathlib.Path(f'out/{number}.png')
    jobs.append(batch.Job(path, target, None, '', 1))
  read, restored = [threading.Event() for _ in jobs], threading.Event()
  real_open = batch.open_picture

  def opening(source, *args):
    read[int(source.stem)].set()
    return real_open(source, *args)

  monkeypatch.setattr(batch, 'open_picture', opening)
  number = iter(range(4))

  def restore(rainy, progress):
    current = next(number)
    if current < 3:
      assert read[current + 1].wait(20), 'the next one was not read meanwhile'
    if current == 1:
      # The first one is written while the second one is restored.
      deadline = time.monotonic() + 20
      while not jobs[0].target.exists():
        assert time.monotonic() < deadline, 'the first one was not written'
        time.sleep(0.01)
      restored.set()
    return rainy

  told = []
  works = batch.restore_files(jobs, restore, batch.Settings(), told.append)
  assert [work.error for work in works] == [''] * 4
  assert restored.is_set()
  assert told == sorted(told)
  assert told[-1] == 1


def test_a_large_picture_has_the_memory_for_itself(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  jobs = [
    batch.Job(put(f'{n}.png'), pathlib.Path(f'out/{n}.png'), None, '', 1)
    for n in range(3)
  ]
  number = iter(range(3))

  def restore(rainy, progress):
    current = next(number)
    for job in jobs[:current]:
      assert job.target.exists()
    assert len(opened) == current + 1
    return rainy

  opened = []
  real_open = batch.open_picture
  monkeypatch.setattr(
    batch, 'open_picture', lambda *args: opened.append(args) or real_open(*args)
  )

  def check(height, width, kept):
    if kept:
      raise ValueError('there is no room for others')

  for settings in (batch.Settings(ahead=100), batch.Settings(check=check)):
    works = list(batch.restore_files(jobs, restore, settings, lambda _: None))
    assert [work.error for work in works] == [''] * 3
    number = iter(range(3))
    opened.clear()
    for job in jobs:
      job.target.unlink()
