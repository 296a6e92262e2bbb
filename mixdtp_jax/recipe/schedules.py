"""The learning rate of each update."""

import optax

from mixdtp_jax.recipe.knobs import Recipe


def make_schedule(recipe: Recipe) -> optax.Schedule:
  """Makes the function of a recipe from update to learning rate."""
  schedule = recipe.schedule
  rate, warmup = schedule.learning_rate, schedule.warmup_steps
  if schedule.name == 'steps':
    main = optax.piecewise_constant_schedule(
      rate, {b - warmup: schedule.factor for b in schedule.boundaries}
    )
  else:
    # The last update, number num_train_steps - 1, has the final rate.
    steps = max(recipe.num_train_steps - warmup - 1, 1)
    main = optax.cosine_decay_schedule(
      rate, steps, alpha=schedule.final_rate / rate
    )
  if not warmup:
    return main
  linear = optax.linear_schedule(0.0, rate, warmup)
  return optax.join_schedules([linear, main], [warmup])
