"""A queue of pictures whose restorer is never done."""

import io
import time
import types

import pytest

from mixdtp_jax.tools.serve import queue
from tests.helpers import hostile


class Slow:
  """Stands for a restorer that is never done; and fails for a gray picture."""

  made = []

  def __init__(self, weights, **options):
    self.made.append((weights, options['memory']))
    if weights == 'broken':
      raise ValueError('broken is damaged')

  def check(self, height, width, kept):
    pass

  def restore(self, pixels, progress):
    while pixels.shape[2] == 3:
      progress(0.5)
      time.sleep(0.01)
    raise KeyError('a bug')


@pytest.fixture
def slow(monkeypatch, tmp_path):
  """A queue that is never done, and a function that adds to it."""
  monkeypatch.setattr(queue, 'Restorer', Slow)
  weights, memories = ['general', 'other', 'broken'], {'all': None, '2 GB': 2}
  made = queue.Queue(tmp_path, weights, memories, 64)

  def add(kind='png', weights='general', memory='all'):
    data = hostile.sound(kind)
    asked = {'name': kind, 'weights': weights, 'memory': memory}
    return made.add(asked, len(data), io.BytesIO(data))

  yield types.SimpleNamespace(queue=made, add=add)
  made.close()
  assert not made._thread.is_alive()


def wait(condition):
  for _ in range(1000):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError
