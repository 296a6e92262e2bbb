"""Native code: its compilation, and its results against plain forms."""

import os
import pathlib
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.ops import dense, depthwise
from mixdtp_jax.ops.cpu import build, native
from tests.helpers.same import random

pytestmark = pytest.mark.usefixtures('quick_compiler')

# (batch, height, width): one task of rows and several, rows of fewer pixels
# than are computed at once, and of one.
SHAPES = [
  (2, 9, 7),
  *(
    pytest.param(shape, marks=pytest.mark.slow)
    for shape in ((1, 1, 1), (1, 17, 12), (3, 8, 2))
  ),
]
# Channels of x and of g: whole vectors of all sizes, and what is left of them.
CHANNELS = [(5, 37), (3, 2), (20, 50), (32, 32)]


def assert_close(actual, expected):
  jax.tree.map(
    lambda a, e: np.testing.assert_allclose(
      a, e, rtol=1e-5, atol=1e-5 * float(jnp.abs(e).max())
    ),
    tuple(actual),
    tuple(expected),
  )


@pytest.mark.compiler
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('channels', [2, 6, 40, 34])
def test_depthwise_and_its_gradients(shape, channels):
  x, g = random(0, *shape, channels), random(1, *shape, channels)
  kernel = random(2, 3, 3, 1, channels)
  value, gradients = jax.vjp(depthwise._xla_convolution, x, kernel)
  assert_close([native.depthwise(x, kernel)], [value])
  assert_close(native.depthwise_gradients(x, kernel, g), gradients(g))


@pytest.mark.compiler
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('channels', [2, 6, 40, 34])
def test_the_gate_and_its_gradients(shape, channels):
  x, g = 2 * random(0, *shape, channels), random(1, *shape, channels // 2)
  kernel = random(2, 3, 3, 1, channels)

  def plain(x, kernel):
    a, b = jnp.split(depthwise._xla_convolution(x, kernel), 2, -1)
    return jax.nn.gelu(a, approximate=False) * b

  value, gradients = jax.vjp(plain, x, kernel)
  assert_close([native.depthwise_gate(x, kernel)], [value])
  actual = native.depthwise_gate_gradients(x, kernel, g)
  assert_close(actual, (*gradients(g), value))


@pytest.mark.compiler
def test_the_gate_of_large_values():
  x = jnp.array([-60.0, -9, -4, -1e-3, 0, 1e-3, 4, 9, 60], jnp.float32)
  image = jnp.stack([x, jnp.ones_like(x)], -1)[None, None]
  kernel = jnp.zeros((3, 3, 1, 2)).at[1, 1].set(1)
  gelu = jax.nn.gelu(x, approximate=False)
  slope = jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=False)))(x)
  grad, _, out = native.depthwise_gate_gradients(
    image, kernel, jnp.ones((1, 1, 9, 1))
  )
  np.testing.assert_allclose(out[0, 0, :, 0], gelu, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(grad[0, 0, :, 0], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.compiler
@pytest.mark.parametrize('shape', [(2, 9, 7), (1, 3, 3), (1, 19, 12)])
def test_inside_leaves_out_the_border(shape):
  x, kernel = random(0, *shape, 6), random(2, 3, 3, 1, 6)
  for function in (native.depthwise, native.depthwise_gate):
    whole = function(x, kernel)
    inside = function(x, kernel, inside=True)
    np.testing.assert_allclose(inside, whole[:, 1:-1, 1:-1], atol=1e-5)


@pytest.mark.compiler
@pytest.mark.parametrize('shape', [*SHAPES, (2, 3, 33)])
@pytest.mark.parametrize(
  ('inputs', 'outputs'), [(3, 16), (16, 3), (1, 1), (5, 7), (17, 35), (64, 32)]
)
def test_dense_convolution(shape, inputs, outputs):
  x, kernel = random(0, *shape, inputs), random(1, 3, 3, inputs, outputs)
  expected = dense._xla_conv3x3(x, kernel)
  assert_close([native.conv3x3(x, kernel)], [expected])


@pytest.mark.compiler
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(('inputs', 'outputs'), CHANNELS)
def test_products_summed_over_pixels(shape, inputs, outputs):
  x, g = random(0, *shape, inputs), random(1, *shape, outputs)
  for kernel, plain in (
    (jnp.zeros((3, 3, inputs, outputs)), dense._xla_conv3x3_kernel_gradient),
    (jnp.zeros((inputs, outputs)), dense._xla_conv1x1_kernel_gradient),
  ):
    actual = native.kernel_gradient(x, kernel, g)
    assert_close([actual], [plain(x, kernel, g)])
  assert_close([native.gram(x, g)], [dense._xla_gram(x, g)])


@pytest.mark.compiler
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('channels', [5, 16, 45])  # 2 cancel each other
def test_layer_norm_and_its_gradients(shape, channels):
  x, g = 3 + random(0, *shape, channels), random(1, *shape, channels)
  scale, bias = random(2, channels), random(3, channels)
  value, gradients = jax.vjp(dense._xla_layer_norm, x, scale, bias)
  assert_close([native.layer_norm(x, scale, bias)], [value])
  assert_close(native.layer_norm_gradients(x, scale, g), gradients(g))


_PROGRAM = """
import jax, jax.numpy as jnp, numpy, sys
from mixdtp_jax.ops.cpu import native
assert native.registered()
x, g = (jax.random.normal(jax.random.key(i), (2, 40, 9, 34)) for i in (0, 1))
k = jax.random.normal(jax.random.key(2), (3, 3, 1, 34))
parts = (native.depthwise_gate(x, k), *native.depthwise_gradients(x, k, g),
         *native.depthwise_gate_gradients(x, k, g[..., :17]),
         native.gram(x, g), native.kernel_gradient(x, jnp.zeros((34, 34)), g),
         native.conv3x3(x[..., :3], k[..., :3] * jnp.ones((3, 1))),
         native.layer_norm(x, k[0, 0, 0], k[1, 1, 0]),
         *native.layer_norm_gradients(x, k[0, 0, 0], g))
numpy.savez(sys.argv[1], *parts)
"""


def _results(path, prefix=(), **variables):
  """Prints what a process with one device computes natively."""
  subprocess.run(
    [*prefix, sys.executable, '-c', _PROGRAM, str(path)],
    env=os.environ | {'XLA_FLAGS': ''} | variables,
    cwd=pathlib.Path(__file__).parents[2],
    check=True,
  )
  return list(np.load(path).values())


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  return _results(tmp_path_factory.mktemp('native') / 'results.npz')


@pytest.mark.slow
@pytest.mark.compiler
def test_the_same_bits_on_one_thread_and_on_two(results, tmp_path):
  alone = _results(tmp_path / 'alone.npz', ['taskset', '-c', '0'])
  assert len(alone) == len(results) == 13
  for a, b in zip(alone, results, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.skipif(
  platform.machine() != 'x86_64', reason='these are vectors of x86'
)
@pytest.mark.parametrize('flag', ['-mno-avx512f', '-mno-avx'])
def test_shorter_vectors_compute_the_same(results, tmp_path, flag):
  compiler = f'{os.environ.get("CXX") or "c++"} {flag}'
  shorter = _results(
    tmp_path / 'shorter.npz', CXX=compiler, XDG_CACHE_HOME=str(tmp_path)
  )
  assert_close(shorter, results)


def _registered(caplog, folder, monkeypatch):
  """Tries to register the functions, with another cache; returns what is said.

  A process keeps a library that it has loaded, whatever becomes of the file.
  """
  monkeypatch.setenv('XDG_CACHE_HOME', str(folder))
  with caplog.at_level('WARNING', 'absl'):
    assert not native.registered.__wrapped__()
  return caplog.text


@pytest.mark.parametrize(
  ('command', 'said'),
  [
    ('no-such-compiler', 'no C++ compiler no-such-compiler. Install one'),
    ("'", "no C++ compiler '"),
    ('false', 'exit status 1. Name another C++ compiler in CXX'),
    pytest.param(
      'c++ --no-such-flag',
      'failed: c++: error: unrecognized command-line op',
      marks=pytest.mark.compiler,
    ),
  ],
)
def test_does_without_a_compiler(command, said, monkeypatch, tmp_path, caplog):
  monkeypatch.setenv('CXX', command)
  assert said in _registered(caplog, tmp_path, monkeypatch)
  assert list((tmp_path / 'mixdtp_jax').glob('*')) == []


def _fake_compiler(monkeypatch, content=b'a library'):
  """Makes compilation quick; what it made cannot be loaded."""

  def run(command, **_):
    commands.append(command)
    pathlib.Path(command[-1]).write_bytes(content)

  commands = []
  monkeypatch.setattr(subprocess, 'run', run)
  monkeypatch.setenv('CXX', sys.executable)  # is there
  return commands


def test_is_compiled_once_for_a_source_and_a_processor(monkeypatch, tmp_path):
  commands = _fake_compiler(monkeypatch)
  path = build.compiled_library(tmp_path)
  assert len(commands) == 3
  assert build.compiled_library(tmp_path) == path
  assert list(tmp_path.iterdir()) == [path]
  assert len(commands) == 3
  monkeypatch.setattr(build, 'processor', lambda: 'another')
  assert build.compiled_library(tmp_path) != path
  assert path.exists()


@pytest.mark.parametrize('damage', [b'', b'a libr', b'A library'])
def test_a_damaged_library_is_made_again(monkeypatch, tmp_path, damage):
  _fake_compiler(monkeypatch)
  path = build.compiled_library(tmp_path)
  path.write_bytes(damage)
  assert build.compiled_library(tmp_path) == path
  assert path.read_bytes() == b'a library'


def test_a_library_that_does_not_load_is_made_again_once(
  monkeypatch, tmp_path, caplog
):
  commands = _fake_compiler(monkeypatch)
  said = _registered(caplog, tmp_path, monkeypatch)
  assert len(commands) == 6
  assert 'the library does not load: ' in said
  assert 'Install' not in said


@pytest.mark.slow
@pytest.mark.compiler
def test_a_truncated_library_of_the_cache_is_not_loaded(tmp_path):
  """It ended the process with SIGBUS."""
  path = build.compiled_library(build.cache_folder())
  cut = tmp_path / 'mixdtp_jax' / path.name
  cut.parent.mkdir()
  cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  program = 'from mixdtp_jax.ops.cpu import native; assert native.registered()'
  subprocess.run(
    [sys.executable, '-c', program],
    env=os.environ | {'XDG_CACHE_HOME': str(tmp_path)},
    cwd=pathlib.Path(__file__).parents[2],
    check=True,
  )
  assert cut.stat().st_size > path.stat().st_size / 2


@pytest.mark.parametrize('others', ['write', 'own'])
def test_a_folder_of_others_is_not_used(others, monkeypatch, tmp_path, caplog):
  folder = tmp_path / 'mixdtp_jax'
  folder.mkdir()
  _fake_compiler(monkeypatch)
  planted = build.compiled_library(folder)
  if others == 'write':
    folder.chmod(0o777)
  else:
    monkeypatch.setattr(os, 'getuid', lambda: folder.stat().st_uid + 1)
  loaded = []
  monkeypatch.setattr(build.ctypes, 'CDLL', loaded.append)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  with caplog.at_level('WARNING', 'absl'):
    build.load_library()
  assert f'others can write into {folder}' in caplog.text
  (path,) = map(pathlib.Path, loaded)
  assert path.parent != planted.parent
  assert not path.exists()


def test_a_folder_of_the_user_is_made_private(monkeypatch, tmp_path):
  _fake_compiler(monkeypatch)
  monkeypatch.setattr(build.ctypes, 'CDLL', lambda path: path)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  path = pathlib.Path(build.load_library())
  assert path.parent == tmp_path / 'mixdtp_jax'
  assert path.parent.stat().st_mode & 0o777 == 0o700


# Without images, without rows, without columns.
EMPTY = [(0, 4, 5), (2, 0, 5), (2, 4, 0)]


@pytest.mark.compiler
@pytest.mark.parametrize('shape', EMPTY)
def test_empty_images_are_as_with_xla(shape):
  x, g, half = (jnp.zeros((*shape, n)) for n in (6, 6, 3))
  kernel, dense_kernel = random(2, 3, 3, 1, 6), random(2, 3, 3, 6, 6)
  flat, scale = random(3, 6, 6), random(4, 6)

  def gate(x, kernel):
    a, b = jnp.split(depthwise._xla_convolution(x, kernel), 2, -1)
    return jax.nn.gelu(a, approximate=False) * b

  value, gradients = jax.vjp(depthwise._xla_convolution, x, kernel)
  normal, of_norm = jax.vjp(dense._xla_layer_norm, x, scale, scale)
  gated, of_gate = jax.vjp(gate, x, kernel)
  found = (
    native.depthwise(x, kernel),
    native.depthwise_gradients(x, kernel, g),
    native.depthwise_gate(x, kernel),
    native.depthwise_gate_gradients(x, kernel, half),
    native.conv3x3(x, dense_kernel),
    native.kernel_gradient(x, dense_kernel, g),
    native.kernel_gradient(x, flat, g),
    native.gram(x, half),
    native.layer_norm(x, scale, scale),
    native.layer_norm_gradients(x, scale, g),
  )
  expected = (
    value,
    gradients(g),
    gated,
    (*of_gate(half), gated),
    dense._xla_conv3x3(x, dense_kernel),
    jnp.zeros_like(dense_kernel),
    jnp.zeros_like(flat),
    dense._xla_gram(x, half),
    normal,
    of_norm(g),
  )
  jax.tree.map(np.testing.assert_array_equal, found, expected)
