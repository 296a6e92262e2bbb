"""What all benchmarks share: a recipe, drawn weights and images, and a file."""

import importlib
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mixdtp_jax.measure import machine
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.recipe.config_file import load_recipe
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.tables import show

_MODULES = {'inference': 'beside_torch', 'training': 'beside_torch'}


class Case(NamedTuple):
  """A recipe that is measured."""

  recipe: Recipe
  words: list[str]  # options that name it in another process
  out: str | None  # JSON file that will be written

  def announce(
    self, what: str, torch: dict[str, Any] | None = None
  ) -> dict[str, Any]:
    """Prints what is measured and on which machine; returns the machine.

    `torch` is of `torch_reference.inference.describe`; None without PyTorch.
    """
    cfg, found = self.recipe.model, machine.describe()
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(cfg)))
    network = f'{cfg.name}, {count:,} parameters, {cfg.dtype}'
    show(f'{what}; {network}\n{machine.one_line(found, torch)}')
    return found

  def check_crop(self, crop: int) -> None:
    """Raises ValueError if the network does not take squares of this side."""
    if crop < 1 or crop % (multiple := self.recipe.model.multiple):
      raise ValueError(
        f'--crop {crop}: the network needs a multiple of {multiple}'
      )


def run(
  name: str,
  *,
  config: str | None,
  overrides: Sequence[str],
  out: str | None,
  **options: Any,
) -> None:
  """Runs `mixdtp bench NAME`: measures, prints tables and writes a JSON file.

  If `out` is a folder, the file becomes NAME.json in it.

  Raises:
    FileNotFoundError, ImportError, ValueError: an option does not fit.
    ChildProcessError: a process that measures failed.
    MemoryError: there is too little memory for the smallest measurement.
  """
  if out is not None and os.path.isdir(out):
    out = os.path.join(out, f'{name}.json')
  config = config or 'default'
  recipe = load_recipe(config, overrides)
  words = [f'--config={config}', *(f'--config.{o}' for o in overrides)]
  module = importlib.import_module(
    f'mixdtp_jax.tools.bench.{_MODULES.get(name, name)}'
  )
  measure = getattr(module, f'bench_{name}')
  found = measure(Case(recipe, words, out), **options)
  if out is not None:
    dump_json({'what': name} | found | {'config': as_mapping(recipe)}, out)


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
