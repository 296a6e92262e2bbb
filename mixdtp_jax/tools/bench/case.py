"""What all benchmarks share: a recipe, drawn weights and images, and a file."""

import contextlib
import functools
import importlib
import io
import multiprocessing
import re
from collections.abc import Callable, Sequence
from concurrent import futures
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

# What JAX and PyTorch say.
_NO_MEMORY = re.compile('RESOURCE_EXHAUSTED|out of memory|allocate memory')
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

    `torch` describes PyTorch if that is measured, too.
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
  """Runs `mixdtp bench NAME`: measures, prints tables, writes a JSON file."""
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


def apart(
  measure: Callable[..., dict], *arguments: Any, cpus: int = 0, **options: Any
) -> dict[str, Any]:
  """Returns what a function returns in a process of its own, without history.

  The peak of its memory is its own. With `cpus`, JAX has that number of CPU
  devices. What the function prints is dropped. MemoryError if there was too
  little memory, ChildProcessError if it failed for another reason.
  """
  call = functools.partial(measure, *arguments, **options)
  spawn = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
    try:
      return process.submit(_run_here, call, cpus).result()
    except futures.process.BrokenProcessPool as error:  # as Linux ends it
      raise MemoryError('a process was ended: is the memory full?') from error


def _run_here(call: functools.partial, cpus: int) -> dict[str, Any]:
  if cpus:
    jax.config.update('jax_num_cpu_devices', cpus)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      return call()
  except Exception as error:  # those of libraries cannot leave the process
    line = str(error).strip().partition('\n')[0]
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
      raise MemoryError(line) from error
    raise ChildProcessError(f'{call.func.__name__}: {line}') from error


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

  ValueError if it is neither, or without pixels.
  """
  if not (match := re.fullmatch(r'0*([1-9]\d*)(?:x0*([1-9]\d*))?', text)):
    raise ValueError(f'--size {text}: needs WIDTHxHEIGHT in pixels, or a side')
  return int(match[1]), int(match[2] or match[1])


def parse_number(option: str, text: str) -> int:
  """Returns the number that an option gives; ValueError if it is none or 0."""
  if not text.isdecimal() or not int(text):
    raise ValueError(f'--{option} {text}: needs a number of at least 1')
  return int(text)
