"""What is measured: the network of a recipe, drawn weights and images."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from mixdtp_jax.measure import machine
from mixdtp_jax.models.config import AnyConfig, make_model_config
from mixdtp_jax.models.factory import abstract_params, make_network
from mixdtp_jax.recipe import config_file
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.runtime.tables import show


def load_recipe(
  config: str | None, overrides: Sequence[str] = ()
) -> tuple[ml_collections.ConfigDict, AnyConfig]:
  """Returns a recipe and the configuration of its network.

  Args:
    config: a recipe's name or file; None is the default recipe.
    overrides: 'OPTION=VALUE', instead of the recipe's.

  Raises:
    FileNotFoundError, ValueError: see `load_config_file`.
  """
  recipe = config_file.load_config_file(
    config or config_file.DEFAULT, overrides
  )
  return recipe, make_model_config(recipe.model)


def announce(what: str, torch: dict[str, Any] | None = None) -> dict[str, Any]:
  """Prints what is measured and on which machine; returns the machine.

  Args:
    what: one line.
    torch: of `torch_variants.describe`; None without PyTorch.
  """
  found = machine.describe()
  show(f'{what}\n{machine.one_line(found, torch)}')
  return found


def write(
  out: str | None, recipe: ml_collections.ConfigDict, **content: Any
) -> None:
  """Writes a JSON file, unless `out` is None; the recipe comes last."""
  if out is not None:
    dump_json(content | {'config': recipe.to_dict()}, out)


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


def parse_numbers(option: str, text: str) -> list[int]:
  """Returns the numbers of 'A,B,...', sorted.

  Raises:
    ValueError: one of them is no number, or 0.
  """
  return sorted({parse_number(option, number) for number in text.split(',')})


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
  multiple = make_network(cfg).multiple
  if crop < 1 or crop % multiple:
    raise ValueError(
      f'--crop {crop}: the network needs a multiple of {multiple}'
    )


def make_shared_mesh(
  devices: int, batch: int, variants: Sequence[str]
) -> jax.sharding.Mesh:
  """Returns a mesh of the first devices, which share a batch.

  Raises:
    ValueError: there are fewer devices, they do not divide the batch, or
      variants in PyTorch, which use one device, would be compared with
      several.
  """
  found = jax.devices()
  if devices > len(found):
    raise ValueError(f'--devices {devices}: there are {len(found)}')
  if devices > 1 and variants:
    raise ValueError(f'--devices {devices}: needs --opponents none')
  if batch % devices:
    raise ValueError(f'--batch {batch}: {devices} devices do not divide it')
  return make_mesh(found[:devices])
