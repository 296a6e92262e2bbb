"""The optimizer of a recipe."""

import optax

from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.schedules import make_schedule


def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
  """Makes the optimizer of a recipe: clipping, then Adam or AdamW."""
  chosen = recipe.optimizer
  options = {'b1': chosen.b1, 'b2': chosen.b2, 'eps': chosen.eps}
  schedule = make_schedule(recipe)
  if chosen.name == 'adam':
    update = optax.adam(schedule, **options)
  else:
    update = optax.adamw(schedule, **options, weight_decay=chosen.weight_decay)
  if not chosen.clip_norm:
    return optax.chain(optax.identity(), update)
  return optax.chain(optax.clip_by_global_norm(chosen.clip_norm), update)
