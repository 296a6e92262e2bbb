"""What is measured: the network of a recipe, drawn weights and images."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mixdtp_jax.measure import machine
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.recipe import config_file
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.tables import show


def load_recipe(
  config: str | None, overrides: Sequence[str] = ()
) -> tuple[Recipe, AnyConfig]:
  """Returns a recipe, by default `default`, and its network's configuration.

  Raises:
    FileNotFoundError, ValueError: see `config_file.load_recipe`.
  """
  recipe = config_file.load_recipe(config or 'default', overrides)
  return recipe, recipe.model


def announce(what: str, torch: dict[str, Any] | None = None) -> dict[str, Any]:
  """Prints what is measured and on which machine; returns the machine.

  `torch` is of `torch_reference.inference.describe`; None without PyTorch.
  """
  found = machine.describe()
  show(f'{what}\n{machine.one_line(found, torch)}')
  return found


def write(out: str | None, recipe: Recipe, **content: Any) -> None:
  """Writes a JSON file, unless `out` is None; the recipe comes last."""
  if out is not None:
    dump_json(content | {'config': as_mapping(recipe)}, out)


def describe(cfg: AnyConfig) -> str:
  """Returns the network in a few words."""
  count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(cfg)))
  return f'{cfg.name}, {count:,} parameters, {cfg.dtype}'


def draw_params(cfg: AnyConfig, seed: int) -> dict:
  """Returns parameters of about the size of fresh ones, in NumPy.

  No time depends on their values, and the network's own initialisation takes
  longer to compile than the network.
  """
  random = np.random.default_rng(seed)

  def draw(leaf):
    bound = np.prod(leaf.shape[:-1]) ** -0.5
    return random.uniform(-bound, bound, leaf.shape).astype(leaf.dtype)

  return jax.tree.map(draw, abstract_params(cfg))


def draw_batch(
  count: int, height: int, width: int, seed: int
) -> dict[str, np.ndarray]:
  """{'rainy', 'clean'}: noise (count, height, width, 3) float32 in [0, 1]."""
  random = np.random.default_rng(seed)
  clean, rain = random.random((2, count, height, width, 3), np.float32)
  return {'rainy': 0.8 * clean + 0.2 * rain, 'clean': clean}


def parse_size(text: str) -> tuple[int, int]:
  """Returns (width, height) of 'WIDTHxHEIGHT', or of 'SIDE' for a square.

  Raises:
    ValueError: it is neither.
  """
  if not (match := re.fullmatch(r'(\d+)(?:x(\d+))?', text)):
    raise ValueError(f'--size {text}: needs WIDTHxHEIGHT in pixels, or a side')
  width, height = int(match[1]), int(match[2] or match[1])
  if not width or not height:
    raise ValueError(f'--size {text}: needs at least one pixel')
  return width, height


def parse_number(option: str, text: str) -> int:
  """Returns the number that an option gives.

  Raises:
    ValueError: it is no number, or 0.
  """
  if not text.isdecimal() or not int(text):
    raise ValueError(f'--{option} {text}: needs a number of at least 1')
  return int(text)


def check_crop(cfg: AnyConfig, crop: int) -> None:
  """Raises ValueError if the network does not take squares of this side."""
  if crop < 1 or crop % cfg.multiple:
    raise ValueError(
      f'--crop {crop}: the network needs a multiple of {cfg.multiple}'
    )
