"""The training state: parameters, optimizer, and the count of updates."""

import jax
import jax.numpy as jnp
import optax

from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.models.factory import Network


def init_state(
  seed: int,
  network: Network,
  optimizer: optax.GradientTransformation,
  *,
  ema: bool = False,
) -> TrainState:
  """A fresh state at step 0; its weights depend on the seed alone.

  With `ema` their average begins at them.
  """
  image = jnp.zeros((1, network.multiple, network.multiple, 3))
  params = network.init(jax.random.key(seed), image)['params']
  return TrainState(
    jnp.zeros((), jnp.int32),
    params,
    optimizer.init(params),
    params if ema else None,
  )
