"""The default recipe: every option with its default. Other recipes change it.

Options that are not listed in mixdtp_jax/recipe/knobs.py do not exist, and are
refused. docs/options.md shows them all.
"""

import ml_collections

from mixdtp_jax.recipe.knobs import Recipe, as_mapping


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(as_mapping(Recipe()))


def for_data_set(name: str) -> ml_collections.ConfigDict:
  """Returns the default recipe for another data set."""
  config = get_config()
  config.data.name = name
  return config
