"""Runs the network in PyTorch on NHWC arrays."""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mixdtp_jax.measure import memory
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.restoration.whole_image import Restore, pad
from mixdtp_jax.torch_reference.network import make_torch_network, torch
from mixdtp_jax.torch_reference.variants import Variant
from mixdtp_jax.weights.state_dict import to_torch


def load_network(cfg: AnyConfig, params: dict) -> torch.nn.Module:
  """Returns the network with JAX's parameters, on the GPU if there is one.

  Raises:
    ValueError: the parameters are not of `cfg`.
  """
  weights = to_torch(params, cfg)
  with torch.device('meta'):  # its own initial numbers are not needed
    network = make_torch_network(cfg)
  network.load_state_dict(
    # Copies: training in place must not reach into JAX's arrays.
    {name: torch.tensor(value) for name, value in weights.items()},
    strict=True,
    assign=True,
  )
  return network.to(first_device())


def first_device() -> torch.device:
  """Returns the GPU if there is one."""
  return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def device_of(network: torch.nn.Module) -> torch.device:
  """Returns the device of the network's parameters."""
  return next(network.parameters()).device


def weights_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
  """Returns a copy of the parameters by their PyTorch names."""
  return {
    name: value.numpy(force=True).copy()
    for name, value in network.state_dict().items()
  }


def to_nchw(images: np.ndarray, device: torch.device) -> torch.Tensor:
  """Converts (B, H, W, C) in NumPy or JAX to (B, C, H, W) on a device."""
  tensor = torch.tensor(np.asarray(images))
  return tensor.movedim(-1, 1).contiguous().to(device)


def to_nhwc(tensor: torch.Tensor) -> np.ndarray:
  """Converts (B, C, H, W) on any device to (B, H, W, C) in NumPy."""
  return tensor.movedim(1, -1).numpy(force=True)


@torch.inference_mode()
def forward(
  network: torch.nn.Module, rainy: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
  """Returns (final, coarse), NCHW and not clamped, of images (B, H, W, 3)."""
  return network(to_nchw(rainy, device_of(network)))


def make_restore(network: torch.nn.Module, *, multiple: int) -> Restore:
  """Returns the counterpart of `whole_image.make_restore` for a network."""

  def restore(images: np.ndarray) -> np.ndarray:
    _, height, width, _ = images.shape
    final, _ = forward(network, pad(images, multiple, num_devices=1))
    return to_nhwc(final.clamp(0, 1))[:, :height, :width]

  return restore


def make_run(
  network: torch.nn.Module, rainy: np.ndarray, variant: Variant, dtype: str
) -> Callable[[], None]:
  """Returns a function, to be timed, that restores images (B, H, W, 3).

  The rainy images are on the device before, and the restored ones stay there.
  The network is a copy. `dtype` is what the variant computes in.
  """
  device = device_of(network)
  images = variant.arrange(to_nchw(rainy, device))
  restore = variant.compile(variant.prepare(network))

  @torch.inference_mode()
  def run() -> None:
    with variant.precision(device, dtype):
      restore(images)
    finish(device)

  return run


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
  """Computes products of float32 numbers in float32: no TF32 on GPUs."""
  backends = torch.backends.cuda.matmul, torch.backends.cudnn
  before = [backend.allow_tf32 for backend in backends]
  try:
    for backend in backends:
      backend.allow_tf32 = False
    yield
  finally:
    for backend, allowed in zip(backends, before, strict=True):
      backend.allow_tf32 = allowed


def use_cores(count: int) -> None:
  """Sets the number of threads on the CPU."""
  torch.set_num_threads(count)


def finish(device: torch.device) -> None:
  """Waits for the device."""
  if device.type == 'cuda':
    torch.cuda.synchronize(device)


def peak_memory(run: Callable[[], Any], device: torch.device) -> memory.Peak:
  """Returns the peak of a run on a device; see `measure.memory`."""
  if device.type == 'cpu':
    return memory.peak_of_process(run)
  torch.cuda.synchronize(device)
  torch.cuda.reset_peak_memory_stats(device)
  before = torch.cuda.memory_allocated(device)
  run()
  peak = torch.cuda.max_memory_allocated(device)
  return memory.Peak(peak - before, 'PyTorch, max_memory_allocated()')


def lacks_memory(error: RuntimeError) -> bool:
  """Returns whether an error of PyTorch says that memory is too small."""
  # On a CPU it raises a plain RuntimeError.
  out_of_memory = isinstance(error, torch.OutOfMemoryError)
  return out_of_memory or 'allocate memory' in str(error)


def release_memory() -> None:
  """Gives back the memory of a GPU that PyTorch keeps for later."""
  gc.collect()
  if torch.cuda.is_available():
    torch.cuda.empty_cache()


def describe(device: torch.device) -> dict[str, Any]:
  """Returns version, device and number of threads."""
  name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
  return {
    'version': torch.__version__,
    'device': f'{device} ({name})',
    'threads': torch.get_num_threads(),
  }
