"""What a computation costs in JAX and in PyTorch: time and memory."""

import dataclasses

import numpy as np

from mixdtp_jax import contenders, inference
from mixdtp_jax.compare.networks import Networks
from mixdtp_jax.contenders import Contender, Cost
from mixdtp_jax.interop import torch_contenders
from mixdtp_jax.mesh import make_mesh
from mixdtp_jax.timing import Timing, paired


@dataclasses.dataclass(frozen=True)
class Speed:
  """Cost of one computation.

  Attributes:
    what: is computed.
    jax: in JAX.
    torch: in PyTorch.
    timing: warm runs in turns; a is JAX, b PyTorch.
  """

  what: str
  jax: Cost
  torch: Cost
  timing: Timing


def measure(what: str, jax: Contender, torch: Contender, repeats: int) -> Speed:
  """Times two contenders, `repeats` runs of each."""
  return Speed(what, jax.cost, torch.cost, paired(jax.run, torch.run, repeats))


def measure_inference(
  networks: Networks, rainy: np.ndarray, repeats: int
) -> Speed:
  """Cost of final images from rainy ones (B, H, W, 3)."""
  mesh = make_mesh([networks.device])
  rainy = inference.pad(rainy, networks.jax.multiple, num_devices=1)
  ours = contenders.make_inference(networks.cfg, networks.params, rainy, mesh)
  theirs = torch_contenders.make_inference(networks.torch, rainy)
  batch, height, width, _ = rainy.shape
  what = f'inference, {batch} x {height}x{width}'
  return measure(what, ours, theirs, repeats)
