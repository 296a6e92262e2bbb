"""Running the network in PyTorch on NHWC arrays, and what it costs there."""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mixdtp_jax.measure import memory
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.restoration.whole_image import Restore, pad
from mixdtp_jax.torch_reference.forms import Form
from mixdtp_jax.torch_reference.network import make_torch_network, torch
from mixdtp_jax.weights.state_dict import to_torch


def load_network(cfg: AnyConfig, params: dict) -> torch.nn.Module:
  """The network in PyTorch with JAX's parameters, on the GPU if there is one.

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
  """The GPU if there is one."""
  return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def weights_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
  """A copy of the parameters, by their PyTorch names."""
  return {
    name: value.numpy(force=True).copy()
    for name, value in network.state_dict().items()
  }


def device_of(network: torch.nn.Module) -> torch.device:
  """Where the network's parameters are."""
  return next(network.parameters()).device


def to_nchw(images: np.ndarray, device: torch.device) -> torch.Tensor:
  """(B, H, W, C) in NumPy or JAX to (B, C, H, W) on a device."""
  tensor = torch.tensor(np.asarray(images))
  return tensor.movedim(-1, 1).contiguous().to(device)


def to_nhwc(tensor: torch.Tensor) -> np.ndarray:
  """(B, C, H, W) on any device to (B, H, W, C) in NumPy."""
  return tensor.movedim(1, -1).numpy(force=True)


@torch.inference_mode()
def forward(
  network: torch.nn.Module, rainy: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
  """(final, coarse), NCHW, of rainy images (B, H, W, 3), not clamped."""
  return network(to_nchw(rainy, device_of(network)))


def make_restore(network: torch.nn.Module, *, multiple: int) -> Restore:
  """Makes the `restore` of `restoration.whole_image` for a PyTorch network."""

  def restore(images: np.ndarray) -> np.ndarray:
    _, height, width, _ = images.shape
    final, _ = forward(network, pad(images, multiple, num_devices=1))
    return to_nhwc(final.clamp(0, 1))[:, :height, :width]

  return restore


def make_run(
  network: torch.nn.Module, rainy: np.ndarray, form: Form, dtype: str
) -> Callable[[], None]:
  """A thunk that restores rainy images (B, H, W, 3), for measuring.

  They are on the device before, and what is restored stays there. The network
  is a copy, in this form; `dtype` as of `Form.precision`.
  """
  device = device_of(network)
  images = form.place(to_nchw(rainy, device))
  restore = form.compile(form.prepare(network))

  @torch.inference_mode()
  def run() -> None:
    with form.precision(device, dtype):
      restore(images)
    finish(device)

  return run


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
  """Products of float32 numbers in float32: no TF32 on GPUs that have it."""
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
  """Computes with this many threads on the CPU."""
  torch.set_num_threads(count)


def finish(device: torch.device) -> None:
  """Returns when the device has done all that it was asked for."""
  if device.type == 'cuda':
    torch.cuda.synchronize(device)


def peak_memory(thunk: Callable[[], Any], device: torch.device) -> memory.Peak:
  """The peak of a thunk that computes on a device; see `memory`."""
  if device.type == 'cpu':
    return memory.peak_of_process(thunk)
  torch.cuda.synchronize(device)
  torch.cuda.reset_peak_memory_stats(device)
  before = torch.cuda.memory_allocated(device)
  thunk()
  peak = torch.cuda.max_memory_allocated(device)
  return memory.Peak(peak - before, 'PyTorch, max_memory_allocated()')


def lacks_memory(error: RuntimeError) -> bool:
  """Whether PyTorch says with it that memory is too small."""
  # On a CPU it raises a plain RuntimeError.
  return isinstance(error, torch.OutOfMemoryError) or 'allocate memory' in str(
    error
  )


def release_memory() -> None:
  """Gives back what PyTorch keeps of a GPU's memory for later."""
  gc.collect()
  if torch.cuda.is_available():
    torch.cuda.empty_cache()


def describe(device: torch.device) -> dict[str, Any]:
  """Version, device and number of threads, for the record."""
  name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
  return {
    'version': torch.__version__,
    'device': f'{device} ({name})',
    'threads': torch.get_num_threads(),
  }
