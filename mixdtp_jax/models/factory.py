"""The network of a configuration: MixDTPNet, Restormer or PReNet.

A network is a Flax module that maps rainy images (B, H, W, 3) to `Outputs`.
Height and width must be multiples of its configuration's `multiple`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from mixdtp_jax.models.config import AnyConfig, MixDTPConfig, PReNetConfig
from mixdtp_jax.models.mixdtp import MixDTP
from mixdtp_jax.models.prenet import PReNet
from mixdtp_jax.models.restormer import Restormer
from mixdtp_jax.models.shapes import abstract_params as abstract_params

Network = MixDTP | PReNet | Restormer


def make_network(cfg: AnyConfig) -> Network:
  """Makes the network of a configuration."""
  if isinstance(cfg, MixDTPConfig):
    return MixDTP(cfg)
  return PReNet(cfg) if isinstance(cfg, PReNetConfig) else Restormer(cfg)


@functools.cache
def final_image(cfg: AnyConfig) -> Callable[[dict, jax.Array], jax.Array]:
  """Returns a function from parameters and rainy images to final images.

  Equal configurations get the same function, so that JAX finds the programs
  that it has compiled for it.
  """
  network = make_network(cfg)

  def apply(params: dict, rainy: jax.Array) -> jax.Array:
    outputs: Any = network.apply({'params': params}, rainy)
    return outputs.final

  return apply
