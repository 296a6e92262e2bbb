"""The state of a training run, which checkpoints hold."""

import flax
import jax
import optax


@flax.struct.dataclass
class TrainState:
  """Everything that training carries from one update to the next."""

  # Updates applied, int32 scalar; also the index of the next batch and the name
  # of the checkpoint.
  step: jax.Array
  params: dict  # of the network, float32
  opt_state: optax.OptState
  ema_params: dict | None = None  # exponential moving average of params

  @property
  def eval_params(self) -> dict:
    """The parameters to evaluate and export: averaged ones if there are any."""
    return self.params if self.ema_params is None else self.ema_params
