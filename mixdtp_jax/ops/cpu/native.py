"""cpu_kernels.cc, compiled where it is first needed, as functions of arrays.

What XLA makes of depthwise and of narrow convolutions, layer norm and the
gradients of kernels on a CPU is several times slower. A C++ compiler is needed
once; without one XLA's loops are used, which compute the same but for rounding.
Sums are in the same order on any number of threads, so results are the same bit
for bit.

All images are (B, H, W, C); all arrays are float32.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging

_SOURCE = pathlib.Path(__file__).with_name('cpu_kernels.cc')
_FLAGS = (
  '-std=c++17', '-O3', '-march=native', '-fno-math-errno',
  '-fno-trapping-math', '-Wno-psabi', '-fPIC', '-shared',
  # Compilers prefer half of a vector for the sake of older processors.
  *(['-mprefer-vector-width=512'] if platform.machine() == 'x86_64' else []),
)  # fmt: skip
_FUNCTIONS = (
  'Depthwise', 'DepthwiseGradients',
  'DepthwiseGate', 'DepthwiseGateGradients',
  'Conv3x3', 'KernelGradient', 'Gram',
  'LayerNorm', 'LayerNormGradients',
)  # fmt: skip

# Of images and results of `conv3x3`. With more, XLA is as fast.
FEW_CHANNELS = 16

_for_others = False


@contextlib.contextmanager
def for_other_devices() -> Iterator[None]:
  """What is traced within it is for devices that are not of this process."""
  global _for_others
  before, _for_others = _for_others, True
  try:
    yield
  finally:
    _for_others = before


def usable(dtype: jnp.dtype) -> bool:
  """Whether the functions below are there for images of a dtype.

  XLA cannot split what it does not know over devices: where there are several,
  and where the CPU is not what JAX computes on, they are not used.
  """
  return (
    not _for_others
    and dtype == jnp.float32
    and jax.default_backend() == 'cpu'
    and jax.device_count() == 1
    and _registered()
  )


@functools.cache
def _registered() -> bool:
  """Tells JAX of the functions; False, with a warning, without a compiler."""
  try:
    library = ctypes.CDLL(str(_compiled(_cache_folder())))
  # A RuntimeError is that there is no home folder.
  except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
    output = getattr(error, 'stderr', None) or str(error)
    logging.warning(
      'Computing without cpu_kernels.cc, several times slower on a CPU: %s. '
      'Install a C++ compiler, or name one in CXX.',
      output.strip().partition('\n')[0],
    )
    return False
  for name in _FUNCTIONS:
    capsule = jax.ffi.pycapsule(getattr(library, name))
    jax.ffi.register_ffi_target(_target(name), capsule, platform='cpu')
  return True


def _target(name):
  return f'mixdtp_jax.{name}'


def _cache_folder() -> pathlib.Path:
  usual = pathlib.Path.home() / '.cache'
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or usual, 'mixdtp_jax')


def _compiled(folder: pathlib.Path) -> pathlib.Path:
  """The library in `folder`, which is made where it is not there.

  Raises:
    OSError: there is no compiler, or the folder cannot be written.
    subprocess.CalledProcessError: the compiler failed; stderr says why.
  """
  command = [
    *shlex.split(os.environ.get('CXX') or 'c++'),
    *_FLAGS,
    '-isystem',
    jax.ffi.include_dir(),
    str(_SOURCE),
    '-o',
  ]
  path = folder / f'cpu_kernels-{_identity(command)}.so'
  if path.exists():
    return path
  logging.info('Compiling %s', _SOURCE.name)
  folder.mkdir(parents=True, exist_ok=True)
  # Another process may do the same now: a whole file takes its place at once.
  with tempfile.TemporaryDirectory(dir=folder) as scratch:
    made = pathlib.Path(scratch, 'made.so')
    subprocess.run(
      [*command, str(made)], check=True, capture_output=True, text=True
    )
    os.replace(made, path)
  return path


def _identity(command) -> str:
  """Of source, interface, compiler and processor, on which a library depends.

  Machines of several kinds may share a home folder.
  """
  parts = [_SOURCE.read_text(), jax.lib.__version__, *command, _processor()]
  return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
  """What it is called and can do, as far as the system tells."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.machine() + platform.processor()
  told = ('model name', 'flags', 'Features', 'CPU part')
  return '\n'.join(sorted({line for line in lines if line.startswith(told)}))


def depthwise(
  x: jax.Array, kernel: jax.Array, *, inside: bool = False
) -> jax.Array:
  """A depthwise 3x3 cross-correlation with zero padding 1.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, 1, C).
    inside: leave out the pixels at the border, of which the neighbours are
      not all there.

  Returns:
    (B, H, W, C), or with `inside` (B, H - 2, W - 2, C).
  """
  return _call('Depthwise', _image(x, x.shape[3], inside), x, kernel)


def depthwise_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The gradients of x and kernel, `g` being that of `depthwise`."""
  return _call('DepthwiseGradients', (_like(x), _like(kernel)), x, kernel, g)


def depthwise_gate(
  x: jax.Array, kernel: jax.Array, *, inside: bool = False
) -> jax.Array:
  """gelu(a) * b, of the halves a, b of the channels of `depthwise`.

  Args:
    x: (B, H, W, 2C).
    kernel: (3, 3, 1, 2C).
    inside: as of `depthwise`.

  Returns:
    (B, H, W, C), or with `inside` (B, H - 2, W - 2, C).
  """
  return _call('DepthwiseGate', _image(x, x.shape[3] // 2, inside), x, kernel)


def depthwise_gate_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The gradients of x and kernel, and what `depthwise_gate` gave, anew."""
  results = (_like(x), _like(kernel), _like(g))
  return _call('DepthwiseGateGradients', results, x, kernel, g)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A dense 3x3 cross-correlation with zero padding 1.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, C, D); C and D are FEW_CHANNELS at most.

  Returns:
    (B, H, W, D).
  """
  shape = (*x.shape[:3], kernel.shape[3])
  return _call('Conv3x3', jax.ShapeDtypeStruct(shape, x.dtype), x, kernel)


def kernel_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
  """Of a dense convolution with zero padding, stride 1.

  It is fast where the kernel fits into a core's cache.

  Args:
    x: (B, H, W, C), the convolution's input.
    kernel: (3, 3, C, D) or (C, D), of which the shape is looked at.
    g: (B, H, W, D), the gradient of its output.

  Returns:
    Of the kernel's shape.
  """
  taps = kernel.size // (x.shape[3] * g.shape[3])
  shape = (taps, x.shape[3], g.shape[3])
  result = jax.ShapeDtypeStruct(shape, kernel.dtype)
  return _call('KernelGradient', result, x, g).reshape(kernel.shape)


def gram(x: jax.Array, y: jax.Array) -> jax.Array:
  """Inner products over the pixels: (B, H, W, C), (B, H, W, D) to (B, C, D)."""
  shape = (x.shape[0], x.shape[3], y.shape[3])
  return _call('Gram', jax.ShapeDtypeStruct(shape, x.dtype), x, y)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
  """Over the channels of each pixel, with epsilon 1e-5; scale, bias: (C,)."""
  return _call('LayerNorm', _like(x), x, scale, bias)


def layer_norm_gradients(
  x: jax.Array, scale: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The gradients of x, scale and bias, `g` being that of `layer_norm`."""
  results = (_like(x), _like(scale), _like(scale))
  return _call('LayerNormGradients', results, x, scale, g)


def flops(target: str, size: int) -> int:
  """Operations of one of them, as `flops.count_flops` counts.

  Args:
    target: what XLA calls it.
    size: numbers in its first result.

  Raises:
    KeyError: it is none whose operations count.
  """
  # A tap is two operations; the gate has two numbers for each of its results.
  # Its gradients are those of image and kernel, and it is made anew for them.
  taps = {
    _target('DepthwiseGate'): 2 * 9,
    _target('DepthwiseGateGradients'): 27,
  }
  return 2 * taps[target] * size


def _call(name, results, *arguments):
  return jax.ffi.ffi_call(_target(name), results)(*arguments)


def _like(x):
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _image(x, channels, inside):
  b, h, w, _ = x.shape
  less = 2 * inside
  return jax.ShapeDtypeStruct((b, h - less, w - less, channels), x.dtype)
