"""The optimizer of a recipe."""

from typing import Any

import jax
import optax
import optax.contrib

from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.schedules import make_schedule

# Root mean square of Muon's updates, times the rate: about that of Adam's, so
# that the same rates suit both (arXiv:2502.16982).
_MUON_RMS = 0.2


def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
  """Makes the optimizer of a recipe: clipping, then Adam, AdamW or Muon."""
  chosen = recipe.optimizer
  options = {'b1': chosen.b1, 'b2': chosen.b2, 'eps': chosen.eps}
  schedule = make_schedule(recipe)
  if chosen.name == 'muon':
    update = optax.contrib.muon(
      schedule,
      eps=chosen.eps,
      adam_b1=chosen.b1,
      adam_b2=chosen.b2,
      muon_weight_dimension_numbers=_matrices,
      consistent_rms=_MUON_RMS,
    )
  elif chosen.name == 'adam':
    update = optax.adam(schedule, **options)
  else:
    update = optax.adamw(schedule, **options, weight_decay=chosen.weight_decay)
  if not chosen.clip_norm:
    return optax.chain(optax.identity(), update)
  return optax.chain(optax.clip_by_global_norm(chosen.clip_norm), update)


def _matrices(params: Any) -> Any:
  """Returns the axes of each weight that Muon takes for rows and columns.

  A convolution is a matrix from all values under its kernel to its outputs. The
  blocks of a stage are stacked along a first axis: each has a matrix of its
  own. None: weights that are no matrix, among them depthwise kernels, which mix
  no channels.
  """

  def axes(path, weight):
    names = [entry.key for entry in path]
    if names[-1] != 'kernel' or weight.shape[-2] == 1:
      return None
    rows = range(int('blocks' in names), weight.ndim - 1)
    return optax.contrib.MuonDimensionNumbers(tuple(rows), weight.ndim - 1)

  return jax.tree_util.tree_map_with_path(axes, params)
