"""The training state: parameters, optimizer, and the count of updates."""

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax

from mixdtp_jax.models.factory import Network


@flax.struct.dataclass
class TrainState:
  """All that training carries from one update to the next.

  Attributes:
    step: updates applied, int32 scalar; also the index of the next batch and
      the name of the checkpoint.
    params: the network's parameters, float32.
    opt_state: the optimizer's state.
    ema_params: the exponential moving average of params; None without one.
  """

  step: jax.Array
  params: dict
  opt_state: optax.OptState
  ema_params: dict | None = None

  @property
  def eval_params(self) -> dict:
    """What is evaluated and exported: the average where there is one."""
    return self.params if self.ema_params is None else self.ema_params


def make_schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
  """The learning rate of update 0, 1, ... as `config.schedule` says.

  Raises:
    ValueError: the schedule's name is unknown, its rate not positive, or its
      steps contradict.
  """
  schedule = config.schedule
  rate, warmup = schedule.learning_rate, schedule.warmup_steps
  if rate <= 0:
    raise ValueError(f'schedule.learning_rate = {rate}: needs more than 0')
  if not 0 <= warmup < config.num_train_steps:
    raise ValueError(
      f'schedule.warmup_steps = {warmup}: needs 0 or more, and fewer than '
      f'num_train_steps = {config.num_train_steps}'
    )
  if schedule.name == 'steps':
    if early := [b for b in schedule.boundaries if b <= warmup]:
      raise ValueError(
        f'schedule.boundaries {early} lie within the '
        f'schedule.warmup_steps = {warmup}'
      )
    main = optax.piecewise_constant_schedule(
      rate, {b - warmup: schedule.factor for b in schedule.boundaries}
    )
  elif schedule.name == 'cosine':
    # The last update is number num_train_steps - 1; it has the final rate.
    steps = max(config.num_train_steps - warmup - 1, 1)
    main = optax.cosine_decay_schedule(
      rate, steps, alpha=schedule.final_rate / rate
    )
  else:
    raise ValueError(
      f'schedule.name = {schedule.name!r}: choose from steps, cosine'
    )
  if not warmup:
    return main
  linear = optax.linear_schedule(0.0, rate, warmup)
  return optax.join_schedules([linear, main], [warmup])


def make_optimizer(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Clipping and Adam or AdamW as `config.optimizer` says.

  Raises:
    ValueError: the optimizer's name is unknown, or adam is given a weight
      decay, which only adamw applies.
  """
  optimizer = config.optimizer
  betas = {'b1': optimizer.b1, 'b2': optimizer.b2, 'eps': optimizer.eps}
  schedule = make_schedule(config)
  if optimizer.name == 'adam':
    if optimizer.weight_decay:
      raise ValueError(
        f'optimizer.weight_decay = {optimizer.weight_decay} has no effect on '
        'adam: choose adamw, or 0'
      )
    update = optax.adam(schedule, **betas)
  elif optimizer.name == 'adamw':
    update = optax.adamw(schedule, **betas, weight_decay=optimizer.weight_decay)
  else:
    raise ValueError(
      f'optimizer.name = {optimizer.name!r}: choose from adam, adamw'
    )
  clip = (
    optax.clip_by_global_norm(optimizer.clip_norm)
    if optimizer.clip_norm
    else optax.identity()
  )
  return optax.chain(clip, update)


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
