"""Runs a network in PyTorch on NHWC arrays, in one of its variants."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.restoration.whole_image import pad
from mixdtp_jax.torch_reference.network import make_torch_network, torch
from mixdtp_jax.weights.state_dict import to_torch


class Variant(NamedTuple):
  """How PyTorch runs a network."""

  # Whether in the layout channels-last, with the fastest convolutions that
  # cuDNN finds by trying, the fused optimizer, and for bfloat16 under autocast;
  # otherwise in contiguous NCHW and float32, with PyTorch's defaults.
  tuned: bool
  compiled: bool  # by torch.compile

  def prepare(self, network: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy of the network in this layout, not compiled yet."""
    torch.backends.cudnn.benchmark = self.tuned
    network = copy.deepcopy(network)
    return network.to(memory_format=self._layout)  # type: ignore[call-overload]

  def arrange(self, images: torch.Tensor) -> torch.Tensor:
    """Returns images (B, C, H, W) in this layout."""
    return images.contiguous(memory_format=self._layout)

  def compile(self, function: Callable) -> Callable:
    """Returns the function, to be compiled on its first call if at all."""
    if not self.compiled:
      return function
    torch.compiler.reset()  # forgets the shapes of earlier networks
    return torch.compile(function, dynamic=False)

  def precision(
    self, device: torch.device, dtype: str
  ) -> contextlib.AbstractContextManager:
    """Returns a context in which the network computes in a dtype."""
    lower = self.tuned and dtype == 'bfloat16'
    return torch.autocast(device.type, torch.bfloat16, enabled=lower)

  @property
  def _layout(self) -> torch.memory_format:
    return torch.channels_last if self.tuned else torch.contiguous_format


# From that of the published code to the fastest.
VARIANTS = {
  'published': Variant(tuned=False, compiled=False),
  'eager': Variant(tuned=True, compiled=False),
  'compile': Variant(tuned=True, compiled=True),
}


def load_network(cfg: AnyConfig, params: dict) -> torch.nn.Module:
  """Returns the network with JAX's parameters, on the GPU if there is one."""
  # Copies: training in place must not reach into JAX's arrays.
  weights = {
    n: torch.tensor(value) for n, value in to_torch(params, cfg).items()
  }
  with torch.device('meta'):  # its own initial numbers are not needed
    network = make_torch_network(cfg)
  network.load_state_dict(weights, strict=True, assign=True)
  return network.to(first_device())


def first_device() -> torch.device:
  """Returns the GPU if there is one."""
  return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def device_of(network: torch.nn.Module) -> torch.device:
  """Returns the device of the network's parameters."""
  return next(network.parameters()).device


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


def make_restore(
  network: torch.nn.Module, *, multiple: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the counterpart of `whole_image.make_restore` for a network."""

  def restore(images: np.ndarray) -> np.ndarray:
    _, height, width, _ = images.shape
    final, _ = forward(network, pad(images, multiple, at_once=1))
    return to_nhwc(final.clamp(0, 1))[:, :height, :width]

  return restore


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
  """Computes products of float32 numbers in float32: no TF32 on GPUs."""
  backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
  before = [backend.allow_tf32 for backend in backends]
  try:
    for backend in backends:
      backend.allow_tf32 = False
    yield
  finally:
    for backend, allowed in zip(backends, before, strict=True):
      backend.allow_tf32 = allowed


def finish(device: torch.device) -> None:
  """Waits for the device."""
  if device.type == 'cuda':
    torch.cuda.synchronize(device)


def describe() -> dict[str, Any]:
  """Returns version, device and number of threads."""
  device = first_device()
  name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
  return {
    'version': torch.__version__,
    'device': f'{device} ({name})',
    'threads': torch.get_num_threads(),
  }
