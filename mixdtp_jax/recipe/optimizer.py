"""The optimizer of a recipe."""

import ml_collections
import optax

from mixdtp_jax.recipe.schedules import make_schedule


def make_optimizer(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Makes the optimizer of `config.optimizer`: clipping, then Adam or AdamW.

  Raises:
    ValueError: the optimizer's name is unknown, or adam has a weight decay,
      which only adamw applies.
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
