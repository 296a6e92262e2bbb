"""Functions of ops/ in native code, through XLA's foreign functions.

On a CPU, XLA is several times slower at depthwise and narrow convolutions,
layer norm, and the gradients of kernels. A C++ compiler is needed once; without
one, XLA's own code is used, which gives the same up to rounding. Sums have the
same order on any number of threads, so results are the same bit for bit.

All images are (B, H, W, C); all arrays are float32.
"""

import functools
from typing import Any

import jax
from absl import logging

from mixdtp_jax.ops.cpu.build import BuildError, load_library

_FUNCTIONS = (
  'Depthwise', 'DepthwiseGradients',
  'DepthwiseGate', 'DepthwiseGateGradients',
  'Conv3x3', 'KernelGradient', 'Gram',
  'LayerNorm', 'LayerNormGradients',
  'Conv3x3Inside', 'Lstm', 'AttentionSums', 'Block',
)  # fmt: skip


@functools.cache
def registered() -> bool:
  """Registers the functions with JAX; returns False if they cannot be made."""
  try:
    library = load_library()
  except BuildError as error:
    logging.warning(
      'Computing without native code, several times slower on a CPU: %s.', error
    )
    return False
  for name in _FUNCTIONS:
    capsule = jax.ffi.pycapsule(getattr(library, name))
    jax.ffi.register_ffi_target(_target(name), capsule, platform='cpu')
  return True


def _target(name):
  return f'mixdtp_jax.{name}'


def depthwise(
  x: jax.Array, kernel: jax.Array, *, inside: bool = False
) -> jax.Array:
  """Computes `depthwise_conv3x3`; with `inside`, without the border pixels."""
  return call('Depthwise', image(x, x.shape[3], 2 * inside), x, kernel)


def depthwise_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Computes `depthwise_conv3x3_gradients`."""
  return call('DepthwiseGradients', (_like(x), _like(kernel)), x, kernel, g)


def depthwise_gate(
  x: jax.Array, kernel: jax.Array, *, inside: bool = False
) -> jax.Array:
  """Computes `gated_gelu` of `depthwise`: (B, H, W, 2C) to (B, H, W, C)."""
  return call('DepthwiseGate', image(x, x.shape[3] // 2, 2 * inside), x, kernel)


def depthwise_gate_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Computes the gradients for x and kernel, and `depthwise_gate` again."""
  results = (_like(x), _like(kernel), _like(g))
  return call('DepthwiseGateGradients', results, x, kernel, g)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `ops.dense.conv3x3`."""
  return call('Conv3x3', image(x, kernel.shape[3]), x, kernel)


def kernel_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
  """Computes the kernel's gradient of `ops.dense.conv3x3` or `conv1x1`.

  Only the shape and the dtype of `kernel` matter.
  """
  taps = kernel.size // (x.shape[3] * g.shape[3])
  shape = (taps, x.shape[3], g.shape[3])
  result = jax.ShapeDtypeStruct(shape, kernel.dtype)
  return call('KernelGradient', result, x, g).reshape(kernel.shape)


def gram(x: jax.Array, y: jax.Array) -> jax.Array:
  """Computes `ops.dense.gram`."""
  shape = (x.shape[0], x.shape[3], y.shape[3])
  return call('Gram', jax.ShapeDtypeStruct(shape, x.dtype), x, y)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
  """Computes `ops.dense.layer_norm`."""
  return call('LayerNorm', _like(x), x, scale, bias)


def layer_norm_gradients(
  x: jax.Array, scale: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Computes the gradients for x, scale and bias from that of the result."""
  results = (_like(x), _like(scale), _like(scale))
  return call('LayerNormGradients', results, x, scale, g)


def flops(target: str, size: int) -> int:
  """Returns the operations of a kernel with `size` numbers in its first result.

  `target` is its name in XLA. A kernel that replaces a single operation of XLA
  counts 0, because `count_flops` counts that operation.
  """
  # A tap is two operations; the gate takes two numbers for each result. Its
  # gradients are those of image and kernel, and it is computed again for them.
  taps = {
    _target('DepthwiseGate'): 2 * 9,
    _target('DepthwiseGateGradients'): 27,
  }
  return 2 * taps.get(target, 0) * size


def call(name: str, results: Any, *arguments: jax.Array, **attributes) -> Any:
  """Calls a function; `results` has the shapes and dtypes that it returns."""
  return jax.ffi.ffi_call(_target(name), results)(*arguments, **attributes)


def _like(x):
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def image(x: jax.Array, channels: int, less: int = 0) -> jax.ShapeDtypeStruct:
  """Returns the shape of images as x, without `less` rows and columns."""
  b, h, w, _ = x.shape
  return jax.ShapeDtypeStruct((b, h - less, w - less, channels), x.dtype)
