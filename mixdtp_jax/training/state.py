"""The state that a run starts from."""

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
  """Makes a state at step 0, whose weights depend only on the seed.

  With `ema`, their moving average starts equal to them.
  """
  image = jnp.zeros((1, network.multiple, network.multiple, 3))
  params = network.init(jax.random.key(seed), image)['params']
  return TrainState(
    jnp.zeros((), jnp.int32),
    params,
    optimizer.init(params),
    params if ema else None,
  )
