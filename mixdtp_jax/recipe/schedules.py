"""The learning rate of each update."""

import ml_collections
import optax


def make_schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
  """Makes the function of `config.schedule` from update to learning rate.

  Raises:
    ValueError: the schedule's name is unknown, its rate is not positive, or
      its updates contradict each other.
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
    # The last update, number num_train_steps - 1, has the final rate.
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
