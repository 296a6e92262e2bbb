"""From a configuration to its network, whichever of the three it is.

A network is a Flax module of a config: rainy images (B, H, W, 3) to `Outputs`.
Its `multiple` is what height and width must be multiples of.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixdtp_jax.models.config import (
  AnyConfig,
  MixDTPConfig,
  PReNetConfig,
  RestormerConfig,
)
from mixdtp_jax.models.mixdtp import MixDTP
from mixdtp_jax.models.prenet import PReNet
from mixdtp_jax.models.restormer import Restormer

Network = MixDTP | PReNet | Restormer

_NETWORKS = {
  MixDTPConfig: MixDTP,
  PReNetConfig: PReNet,
  RestormerConfig: Restormer,
}


def make_network(cfg: AnyConfig) -> Network:
  """The network of a configuration."""
  return _NETWORKS[type(cfg)](cfg)


@functools.cache
def final_image(cfg: AnyConfig) -> Callable[[dict, jax.Array], jax.Array]:
  """(parameters, rainy images) -> final images, of `make_network(cfg)`.

  The same function for the same configuration, so that what JAX compiled for
  it is found again.
  """
  network = make_network(cfg)
  return lambda params, rainy: network.apply({'params': params}, rainy).final


@functools.cache
def abstract_params(cfg: AnyConfig) -> dict:
  """Shapes and dtypes of a network's parameters, with nothing computed.

  The same tree at every call: not to be changed.
  """
  network = make_network(cfg)
  shape = (1, network.multiple, network.multiple, 3)
  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(network.init, key, image)['params']
