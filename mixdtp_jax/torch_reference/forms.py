"""The forms in which PyTorch runs one and the same network."""

import contextlib
import copy
from collections.abc import Callable
from typing import NamedTuple

from mixdtp_jax.torch_reference.network import torch


class Form(NamedTuple):
  """How a network is run.

  Attributes:
    tuned: in the layout channels-last, with the fastest convolutions that
      cuDNN finds by trying, the fused optimizer, and where bfloat16 is asked
      for, under autocast. Otherwise in contiguous NCHW and float32, with
      PyTorch's defaults.
    compiled: by torch.compile.
  """

  tuned: bool
  compiled: bool

  def prepare(self, network: torch.nn.Module) -> torch.nn.Module:
    """A copy of the network in this layout, not compiled yet."""
    torch.backends.cudnn.benchmark = self.tuned
    return copy.deepcopy(network).to(memory_format=self._layout)

  def place(self, images: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W) in this layout."""
    return images.contiguous(memory_format=self._layout)

  def compile(self, function: Callable) -> Callable:
    """The function, compiled at its first call where this form asks for it."""
    if not self.compiled:
      return function
    torch.compiler.reset()  # forgets the shapes of earlier networks
    return torch.compile(function, dynamic=False)

  def precision(
    self, device: torch.device, dtype: str
  ) -> contextlib.AbstractContextManager:
    """Within it, the network computes in a dtype of `MixDTPConfig`."""
    lower = self.tuned and dtype == 'bfloat16'
    return torch.autocast(device.type, torch.bfloat16, enabled=lower)

  @property
  def _layout(self) -> torch.memory_format:
    return torch.channels_last if self.tuned else torch.contiguous_format


# From the published code's to the fastest.
FORMS = {
  'published': Form(tuned=False, compiled=False),
  'eager': Form(tuned=True, compiled=False),
  'compile': Form(tuned=True, compiled=True),
}
