"""The variants in which PyTorch runs one and the same network."""

import contextlib
import copy
from collections.abc import Callable
from typing import NamedTuple

from mixdtp_jax.torch_reference.network import torch


class Variant(NamedTuple):
  """How PyTorch runs a network.

  Attributes:
    tuned: whether in the layout channels-last, with the fastest convolutions
      that cuDNN finds by trying, the fused optimizer, and for bfloat16 under
      autocast; otherwise in contiguous NCHW and float32, with PyTorch's
      defaults.
    compiled: whether by torch.compile.
  """

  tuned: bool
  compiled: bool

  def prepare(self, network: torch.nn.Module) -> torch.nn.Module:
    """Returns a copy of the network in this layout, not compiled yet."""
    torch.backends.cudnn.benchmark = self.tuned
    return copy.deepcopy(network).to(memory_format=self._layout)

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
