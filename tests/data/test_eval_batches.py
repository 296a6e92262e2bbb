import numpy as np

from mixdtp_jax.data import eval_batches
from tests.helpers.batches import open_pairs


def test_eval_batches_group_by_shape(data_dir):
  pairs = open_pairs(data_dir, 'test')
  batches = list(eval_batches.eval_batches(pairs, batch_size=2))
  assert [b.names for b in batches] == [('0', '2'), ('4',), ('1', '3')]
  assert [b.rainy.shape for b in batches] == [
    (2, 24, 30, 3),
    (2, 24, 30, 3),
    (2, 25, 30, 3),
  ]
  np.testing.assert_array_equal(batches[1].rainy[0], batches[1].rainy[1])
  expected = np.float32(pairs[3]['clean']) / np.float32(255)
  np.testing.assert_array_equal(batches[2].clean[1], expected)
  assert batches[0].clean.dtype == np.float32


def test_eval_limit_takes_the_first(data_dir):
  pairs = open_pairs(data_dir, 'test')
  batches = eval_batches.eval_batches(pairs, batch_size=4, limit=3)
  assert [b.names for b in batches] == [('0', '2'), ('1',)]
