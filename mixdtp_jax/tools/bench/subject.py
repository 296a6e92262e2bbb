"""What is measured: the network of a recipe, drawn weights, drawn images."""

import re
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from mixdtp_jax.models.config import AnyConfig, make_model_config
from mixdtp_jax.models.factory import abstract_params, make_network
from mixdtp_jax.recipe import config_file
from mixdtp_jax.runtime.mesh import make_mesh


def load_recipe(
  config: str | None, overrides: Sequence[str] = ()
) -> tuple[ml_collections.ConfigDict, AnyConfig]:
  """A recipe and its network.

  Args:
    config: a file as in configs/; None is configs/default.py.
    overrides: KNOB=VALUE, in the place of its own.

  Raises:
    FileNotFoundError, ValueError: there is no such file, or it does not fit.
  """
  recipe = config_file.override(
    config_file.load_config_file(config or config_file.DEFAULT), overrides
  )
  return recipe, make_model_config(recipe.model)


def describe(cfg: AnyConfig) -> str:
  """The network in a few words."""
  count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(cfg)))
  return f'{cfg.name}, {count:,} parameters, {cfg.dtype}'


def draw_params(cfg: AnyConfig, seed: int) -> dict:
  """Parameters of about the size of fresh ones, in NumPy.

  No time depends on their values, and to compile the network's own
  initialisation takes longer than to compile the network.
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
  """(width, height) of 'WIDTHxHEIGHT', or of 'SIDE' for a square.

  Raises:
    ValueError: it is neither.
  """
  if not (match := re.fullmatch(r'(\d+)(?:x(\d+))?', text)):
    raise ValueError(f'--size {text}: needs WIDTHxHEIGHT in pixels, or a side')
  width, height = int(match[1]), int(match[2] or match[1])
  if not width or not height:
    raise ValueError(f'--size {text}: needs at least one pixel')
  return width, height


def check_crop(cfg: AnyConfig, crop: int) -> None:
  """Raises ValueError where the network does not take squares of this side."""
  multiple = make_network(cfg).multiple
  if crop < 1 or crop % multiple:
    raise ValueError(
      f'--crop {crop}: the network needs a multiple of {multiple}'
    )


def parse_batch(text: str) -> int:
  """A number of images.

  Raises:
    ValueError: it is none, or 0.
  """
  if not text.isdecimal() or not int(text):
    raise ValueError(f'--batch {text}: needs a number of at least 1')
  return int(text)


def share(
  devices: int, batch: int, opponents: tuple[str, ...]
) -> jax.sharding.Mesh:
  """The first devices, which share a batch.

  Raises:
    ValueError: there are fewer, or they do not divide it, or opponents, which
      have one device, would be compared with several.
  """
  found = jax.devices()
  if not 0 < devices <= len(found):
    raise ValueError(f'--devices {devices}: there are {len(found)}')
  if devices > 1 and opponents:
    raise ValueError(f'--devices {devices}: needs --opponents none')
  if batch % devices:
    raise ValueError(f'--batch {batch}: {devices} devices do not divide it')
  return make_mesh(found[:devices])
