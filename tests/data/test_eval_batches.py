import threading

import numpy as np

from mixdtp_jax.data import eval_batches
from tests.helpers.batches import open_pairs


def test_eval_batches_group_by_shape(data_dir):
  pairs = open_pairs(data_dir, 'test')
  batches = list(eval_batches.eval_batches(pairs, batch_size=2))
  assert [b.names for b in batches] == [('0', '2'), ('4',), ('1', '3')]
  assert [b.rainy.shape for b in batches] == [
    (2, 24, 30, 3),
    (1, 24, 30, 3),
    (2, 25, 30, 3),
  ]
  expected = np.float32(pairs[3]['clean']) / np.float32(255)
  np.testing.assert_array_equal(batches[2].clean[1], expected)
  assert batches[0].clean.dtype == np.float32


def test_eval_limit_takes_the_first(data_dir):
  pairs = open_pairs(data_dir, 'test')
  batches = eval_batches.eval_batches(pairs, batch_size=4, limit=3)
  assert [b.names for b in batches] == [('0', '2'), ('1',)]


class _Counted:
  """Pairs that tell when the second one is decoded."""

  def __init__(self):
    self.decoded = threading.Event()

  def __len__(self):
    return 100

  def __getitem__(self, index):
    if index == 1:
      self.decoded.set()
    assert index < 5, 'decoded too early'
    image = np.zeros((*self.shape(index), 3), np.uint8)
    return {'name': str(index), 'rainy': image, 'clean': image}

  def shape(self, index):
    return 4, 4


def test_the_next_batches_are_decoded_meanwhile_and_no_more(monkeypatch):
  monkeypatch.setattr('os.cpu_count', lambda: 64)
  pairs = _Counted()
  batches = eval_batches.eval_batches(pairs, batch_size=1)
  assert next(batches).names == ('0',)
  assert pairs.decoded.wait(20)
