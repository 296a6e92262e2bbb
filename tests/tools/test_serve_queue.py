"""The queue of the server, without a server."""

import io
import threading
import time

import pytest

from mixdtp_jax.tools.serve import queue
from tests.helpers import hostile
from tests.helpers.slow_queue import Slow, wait


def test_nothing_is_done_for_a_visitor_who_is_gone(slow):
  first, second = slow.add(), slow.add()
  wait(lambda: first.progress)
  assert slow.queue.ahead(second) == 1
  first.asked -= 1000
  wait(lambda: second.state == 'working')
  assert first.facts['error'].startswith('nobody waited')
  slow.queue.drop(second)
  wait(lambda: not second.folder.exists())
  first.asked -= 5000
  third = slow.add()
  wait(lambda: third.progress)
  assert [path.name for path in third.folder.parent.iterdir()] == [
    third.folder.name
  ]


def test_a_bug_ends_one_picture_and_not_the_server(slow):
  failed, following = slow.add('png_gray'), slow.add()
  wait(lambda: following.progress)
  assert failed.facts == {'error': 'png_gray could not be restored: KeyError'}


def test_a_visitor_chooses_weights_and_memory(slow):
  damaged = slow.add(weights='broken')
  other = slow.add(weights='other', memory='2 GB')
  wait(lambda: other.progress)
  assert Slow.made[-3:] == [('general', None), ('broken', None), ('other', 2)]
  assert damaged.state == 'failed'
  assert damaged.facts == {
    'error': 'the weights could not be loaded: broken is damaged'
  }


def test_pictures_are_looked_into_one_at_a_time(slow, monkeypatch):
  """Some formats are read as a whole, so many at once could take all memory."""
  inside, most = [], []

  def look(upload, check):
    inside.append(upload)
    most.append(len(inside))
    time.sleep(0.05)
    inside.remove(upload)
    raise queue.Refused('it is no picture')

  def visit():
    with pytest.raises(queue.Refused):
      slow.add()

  monkeypatch.setattr(queue.Upload, 'open', look)
  threads = [threading.Thread(target=visit) for _ in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert most == [1] * 5


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_a_hundred_megapixels_are_refused_by_default(slow):
  data = hostile.big_png(10_000, 10_000)
  with pytest.raises(queue.Refused, match='more than the 64 million'):
    asked = {'name': 'a.png', 'weights': 'general', 'memory': 'all'}
    slow.queue.add(asked, len(data), io.BytesIO(data))
