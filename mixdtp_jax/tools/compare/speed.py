"""What a computation costs in JAX and in PyTorch: time and memory."""

import dataclasses

import numpy as np

from mixdtp_jax.measure import timed
from mixdtp_jax.measure.timed import Contender, Cost
from mixdtp_jax.measure.timing import Timing, paired
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.tools.compare.networks import Networks
from mixdtp_jax.torch_reference import timed as torch_timed


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
  rainy = whole_image.pad(rainy, networks.jax.multiple, num_devices=1)
  ours = timed.make_inference(networks.cfg, networks.params, rainy, mesh)
  theirs = torch_timed.make_inference(networks.torch, rainy)
  batch, height, width, _ = rainy.shape
  what = f'inference, {batch} x {height}x{width}'
  return measure(what, ours, theirs, repeats)
