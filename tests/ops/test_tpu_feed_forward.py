"""The feed-forward's TPU kernels, interpreted on a CPU."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.ops import choice, dense
from mixdtp_jax.ops import fused_feed_forward as residual
from mixdtp_jax.ops.feed_forward import feed_forward
from mixdtp_jax.ops.fused_feed_forward import residual_feed_forward
from mixdtp_jax.ops.tpu import feed_forward as on_tpu
from mixdtp_jax.ops.tpu.feed_forward import Arguments, fits
from mixdtp_jax.runtime.mesh import (
  batch_sharding,
  make_mesh,
  place,
  replicated,
  traced_for,
)

pytestmark = pytest.mark.usefixtures('quick_compiler')
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def arguments_of(shape, hidden, dtype='float32'):
  c = shape[-1]
  keys = jax.random.split(jax.random.key(0), 6)
  x, scale, bias, widen, depthwise, narrow = (
    jax.random.normal(key, shape)
    for key, shape in zip(
      keys,
      (shape, (c,), (c,), (c, 2 * hidden), (3, 3, 1, 2 * hidden), (hidden, c)),
      strict=True,
    )
  )
  return Arguments(
    x.astype(dtype),
    1 + 0.1 * scale,
    bias,
    widen / c**0.5,
    depthwise / 3,
    narrow / hidden**0.5,
  )


def plain(x, scale, bias, *kernels):
  return x + feed_forward(dense.layer_norm(x, scale, bias), *kernels)


def value_and_gradients(function, arguments, g):
  value, gradients = jax.vjp(function, *arguments)
  return value, *gradients(g)


@pytest.mark.parametrize(
  ('shape', 'hidden', 'dtype', 'tolerance'),
  [
    ((1, 4, 4, 8), 9, 'float32', 2e-6),
    slow((2, 8, 16, 16), 20, 'float32', 2e-6),
    slow((2, 12, 12, 16), 150, 'float32', 2e-6),  # two groups, rows of no tiles
    slow((2, 16, 24, 16), 40, 'bfloat16', 0.02),
  ],
)
def test_the_kernels_are_the_plain_form(shape, hidden, dtype, tolerance):
  arguments = arguments_of(shape, hidden, dtype)
  assert fits(shape, dtype, hidden)
  g = jax.random.normal(jax.random.key(1), shape).astype(dtype)
  want = value_and_gradients(plain, arguments, g)
  got = (
    on_tpu.forward(arguments, interpret=True),
    *on_tpu.gradients(arguments, g, interpret=True),
  )
  for x, y in zip(got, want, strict=True):
    assert x.dtype == y.dtype
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * abs(y).max())


def test_what_fits():
  assert fits((4, 96, 96, 64), 'bfloat16', 170)
  assert fits((4, 128, 128, 64), 'bfloat16', 170)
  assert fits((4, 12, 12, 512), 'bfloat16', 1361)
  assert not fits((4, 128, 128, 64), 'float32', 170)  # too large
  assert not fits((1, 11, 11, 512), 'float32', 1361)  # no rows fill whole tiles


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 8, 8, 8), (1, 5, 7, 8)])
def test_off_a_tpu_it_is_the_plain_form(shape):
  arguments = arguments_of(shape, 12)
  g = jnp.ones(shape)
  for x, y in zip(
    value_and_gradients(residual_feed_forward, arguments, g),
    value_and_gradients(plain, arguments, g),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('platform', 'kernels'), [('tpu', 2), ('cpu', 0)])
def test_on_a_tpu_it_is_two_kernels(platform, kernels):
  def both(arguments, g):
    return value_and_gradients(residual_feed_forward, arguments, g)

  arguments = arguments_of((2, 16, 16, 16), 20)
  trace = jax.jit(choice.traced_with('tpu', both)).trace(arguments, arguments.x)
  text = trace.lower(lowering_platforms=(platform,)).as_text()
  assert text.count('@tpu_custom_call') == kernels


@pytest.mark.slow
@pytest.mark.usefixtures('eight_devices')
def test_each_device_computes_its_own_images(monkeypatch):
  # As on TPUs, but interpreted.
  lax = types.SimpleNamespace(
    platform_dependent=lambda *args, tpu, default: tpu(*args),
    psum=jax.lax.psum,
  )
  monkeypatch.setattr(residual, 'lax', lax)
  kernels = types.SimpleNamespace(
    fits=fits,
    forward=functools.partial(on_tpu.forward, interpret=True),
    gradients=functools.partial(on_tpu.gradients, interpret=True),
  )
  monkeypatch.setattr(residual, 'on_tpu', kernels)
  mesh = make_mesh(jax.devices()[:4])
  arguments = arguments_of((4, 8, 16, 8), 12)
  g = jax.random.normal(jax.random.key(1), arguments.x.shape)

  def both(arguments, g):
    return value_and_gradients(residual_feed_forward, arguments, g)

  images = batch_sharding(mesh)
  split = Arguments(
    place(arguments.x, images), *place(arguments[1:], replicated(mesh))
  )
  traced = choice.traced_with('tpu', traced_for(mesh, both))
  got = jax.jit(traced)(split, place(g, images))
  for x, y in zip(got, value_and_gradients(plain, arguments, g), strict=True):
    np.testing.assert_allclose(x, y, rtol=0, atol=2e-6 * abs(y).max())
