"""The cache of decoded pairs, as a mixture of sets uses it."""

import concurrent.futures
import threading

import numpy as np
import pytest

from mixdtp_jax.data.mixture import Mixture

_SIZE = 300 * 400 * 3 * 2  # bytes of a pair: three fit into 2.1 MiB


class _Decoder:
  """Pairs that count how often each one is decoded."""

  def __init__(self, count):
    self.counts = [0] * count
    self._lock = threading.Lock()

  def __len__(self):
    return len(self.counts)

  def __getitem__(self, index):
    with self._lock:
      self.counts[index] += 1
    image = np.full((300, 400, 3), index, np.uint8)
    return {'name': str(index), 'rainy': image, 'clean': 255 - image}

  def shape(self, index):
    return 300, 400 + index


def _cached(decoder, limit_mb):
  return Mixture([decoder], [1], limit_mb)


def test_gives_what_the_pairs_are():
  decoder = _Decoder(4)
  pairs = _cached(decoder, 1)
  assert len(pairs) == 4
  assert pairs.shape(3) == (300, 403)
  for _ in range(2):
    for index in range(4):
      pair = pairs[index]
      assert pair['name'] == str(index)
      assert (pair['rainy'] == index).all()
      assert (pair['clean'] == 255 - index).all()


@pytest.mark.parametrize(
  ('limit_mb', 'kept'),
  [(0, 0), (0.1, 0), (_SIZE / 2**20, 1), (2.1, 3), (100, 5)],
)
def test_keeps_as_many_as_fit(limit_mb, kept):
  decoder = _Decoder(5)
  pairs = _cached(decoder, limit_mb)
  for _ in range(3):
    for index in range(5):
      pairs[index]
  assert decoder.counts == [1] * kept + [3] * (5 - kept)


def test_a_smaller_pair_fills_what_is_left():
  class Shrinking(_Decoder):
    def __getitem__(self, index):
      pair = super().__getitem__(index)
      rows = 300 // (index + 1)
      return {s: pair[s][:rows].copy() for s in ('rainy', 'clean')}

  decoder = Shrinking(3)
  pairs = _cached(decoder, 1.4 * _SIZE / 2**20)
  for _ in range(2):
    for index in range(3):
      pairs[index]
  assert decoder.counts == [1, 2, 1]  # a whole, no half, a third


def test_threads_do_not_pass_the_limit():
  decoder = _Decoder(40)
  pairs = _cached(decoder, 10 * _SIZE / 2**20)
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(pairs.__getitem__, list(range(40)) * 3))
  before = list(decoder.counts)
  for index in range(40):
    pairs[index]
  again = [a - b for a, b in zip(decoder.counts, before, strict=True)]
  assert again.count(0) == 10
