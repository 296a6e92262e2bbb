"""Functions of windows: native code beside XLA, and windows beside images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.ops import choice, dense, windows

pytestmark = [pytest.mark.compiler, pytest.mark.usefixtures('quick_compiler')]


def random(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, 'f'))


def both(function, *arguments):
  """What XLA and the native code compute."""
  found = []
  for kernels in ('xla', 'cpu'):
    with choice.kernels(kernels):
      found.append(jax.tree.map(np.asarray, jax.jit(function)(*arguments)))
  return found


def close(actual, expected):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual / scale, expected / scale, atol=2e-6)


# Windows in the middle of an image, at its corners, and around all of it.
BOUNDS = [(0, 99, 0, 99), (2, 99, 3, 99), (-5, 9, -5, 8), (4, 7, 3, 4)]


@pytest.mark.parametrize('size', [(3, 3), (4, 5), (13, 12), (12, 39)])
@pytest.mark.parametrize(
  ('inputs', 'outputs'), [(3, 16), (6, 16), (16, 3), (32, 64), (17, 35), (1, 1)]
)
def test_dense_convolution(size, inputs, outputs):
  x, kernel = random(0, 1, *size, inputs), random(1, 3, 3, inputs, outputs)
  xla, compiled = both(windows.conv3x3, x, kernel)
  whole = dense._xla_conv3x3(x, kernel)[:, 1:-1, 1:-1]
  close(xla, whole)
  close(compiled, whole)


# Functions of the module are compiled once for all bounds.
def follow(x, kernel, bias, added, bounds):
  return windows.conv3x3(
    x, kernel, bias=bias, relu=True, added=added, bounds=bounds, trim=2
  )


@pytest.mark.parametrize('bounds', BOUNDS)
@pytest.mark.parametrize('channels', [16, 18])
def test_what_follows_a_convolution(bounds, channels):
  x, kernel = random(0, 1, 14, 13, 8), random(1, 3, 3, 8, channels)
  bias, added = random(2, channels), random(3, 1, 16, 15, channels)
  bounds = jnp.array(bounds, jnp.int32)
  xla, compiled = both(follow, x, kernel, bias, added, bounds)
  close(compiled, xla)
  plain = jax.nn.relu(windows.conv3x3(x, kernel) + bias)
  plain = jax.nn.relu(plain + added[:, 2:-2, 2:-2])
  rows, columns = np.arange(12)[:, None] + 2, np.arange(11) + 2
  top, bottom, left, right = bounds
  inside = (rows >= top) & (rows < bottom) & (columns >= left)
  close(xla, plain * (inside & (columns < right))[None, :, :, None])


def lstm(x, h, c, kernel, bias, bounds):
  return windows.lstm(x, h, c, kernel, bias, bounds, trim=3)


@pytest.mark.parametrize('bounds', BOUNDS)
@pytest.mark.parametrize('channels', [4, 16, 21])
@pytest.mark.parametrize('first', [True, False])
def test_lstm(bounds, channels, first):
  x = random(0, 1, 13, 12, channels)
  bounds = jnp.array(bounds, jnp.int32)
  kernel = random(1, 3, 3, (1 if first else 2) * channels, 4 * channels) / 4
  bias, h, c = random(2, 4 * channels), random(3, *x.shape), None
  if first:
    h = None
  else:
    c = random(4, 1, 11, 10, channels)
  xla, compiled = both(lstm, x, h, c, kernel, bias, bounds)
  for one, other in zip(compiled, xla, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)
  gates = dense._xla_conv3x3(x, kernel[:, :, :channels]) + bias
  if not first:
    gates += dense._xla_conv3x3(h, kernel[:, :, channels:])
  i, f, g, o = jnp.split(gates[:, 1:-1, 1:-1], 4, -1)
  state = jax.nn.sigmoid(i) * jnp.tanh(g)
  state += 0 if first else jax.nn.sigmoid(f) * c
  np.testing.assert_allclose(xla[0], state, atol=3e-6)
  shown = jax.nn.sigmoid(o) * jnp.tanh(state)
  np.testing.assert_allclose(
    xla[1], shown * windows.exists(bounds, shown, 3), atol=3e-6
  )


def weights(channels, hidden):
  norm1, norm2 = ((1 + random(s, channels), random(s + 1, channels))
                  for s in (20, 30))  # fmt: skip
  q, k, v = (
    (random(s, channels, channels), random(s + 1, 3, 3, 1, channels))
    for s in (40, 50, 60)
  )
  feed_forward = (
    random(70, channels, 2 * hidden),
    random(71, 3, 3, 1, 2 * hidden),
    random(72, hidden, channels),
  )
  return norm1, norm2, q, k, v, feed_forward


@pytest.mark.parametrize('bounds', BOUNDS)
@pytest.mark.parametrize('channels', [8, 21, 32])
def test_attention_sums(bounds, channels):
  x = random(0, 1, 40, 11, channels)
  norm, _, q, k, _, _ = weights(channels, 1)
  bounds = jnp.array(bounds, jnp.int32)
  xla, compiled = both(windows.attention_sums, x, bounds, norm, q, k)
  close(compiled, xla)


@pytest.mark.parametrize('bounds', BOUNDS)
@pytest.mark.parametrize(('channels', 'hidden'), [(8, 21), (16, 42), (21, 3)])
def test_block(bounds, channels, hidden):
  x, mix = random(0, 1, 41, 11, channels), random(1, channels, channels)
  norm1, norm2, _, _, v, feed_forward = weights(channels, hidden)
  bounds = jnp.array(bounds, jnp.int32)
  arguments = x, bounds, mix, norm1, v, norm2, feed_forward
  xla, compiled = both(windows.block, *arguments)
  inside = np.asarray(windows.exists(bounds, xla, 2))
  close(compiled * inside, xla * inside)
