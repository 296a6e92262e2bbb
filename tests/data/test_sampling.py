import pytest
import tensorflow as tf

from mixdtp_jax.data import sampling


@pytest.mark.parametrize('size', [1, 2, 5, 200])
def test_every_epoch_shows_every_image_once(size):
  epochs = []
  for epoch in range(3):
    k = range(epoch * size, (epoch + 1) * size)
    index = [
      int(sampling._image_index(tf.constant(n, tf.int64), size, 0)) for n in k
    ]
    assert sorted(index) == list(range(size))
    epochs.append(index)
  if size == 200:
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
