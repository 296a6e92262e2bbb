"""What all benchmarks share: a recipe, drawn weights and images, and a file."""

import contextlib
import functools
import importlib
import io
import multiprocessing
import pickle
import re
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any, NamedTuple

import jax
import numpy as np

from mixdtp_jax.measure import machine
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.recipe.config_file import load_recipe
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime import console
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
  little memory, ChildProcessError if the process ended without an answer, else
  what the function raised, see `_as_sent`.
  """
  call = functools.partial(measure, *arguments, **options)
  spawn = multiprocessing.get_context('spawn')
  answers, sender = spawn.Pipe(duplex=False)
  child = spawn.Process(target=_run_here, args=(sender, call, cpus))
  child.start()
  sender.close()
  try:
    found = answers.recv()
  except EOFError:
    found = None
  except BaseException:  # as Ctrl-C, which the child ignores
    child.kill()
    raise
  child.join()
  if isinstance(found, Exception):
    raise found
  if found is None and child.exitcode == -signal.SIGKILL:  # as Linux ends it
    raise MemoryError('a process was killed: is the memory full?')
  if found is None:
    raise ChildProcessError(f'a process had exit status {child.exitcode}')
  return found


def _run_here(
  sender: connection.Connection, call: functools.partial, cpus: int
) -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  console.set_up_logging(first=False)
  if cpus:
    jax.config.update('jax_num_cpu_devices', cpus)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      found = call()
  except Exception as error:  # noqa: BLE001 (the parent raises it)
    found = _as_sent(error)
  sender.send(found)


def _as_sent(error: Exception) -> Exception:
  """Returns an error that can leave a process; MemoryError if that is why.

  OSError, ValueError and RuntimeError stay as they are, or keep their text if
  their class is not made for it. Others are bugs: Exception, with the type.
  """
  text = str(error).strip() or type(error).__name__
  if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
    return MemoryError(text.partition('\n')[0])
  for kind in (OSError, ValueError, RuntimeError):
    if isinstance(error, kind):
      try:
        return pickle.loads(pickle.dumps(error))
      except Exception:  # noqa: BLE001 (whatever a library's class does)
        return kind(text)
  bug = Exception(f'{type(error).__name__}: {error}')
  bug.add_note(''.join(traceback.format_exception(error)))
  return bug


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
    raise ValueError(
      f'--size {text}: needs WIDTHxHEIGHT, each at least 1 pixel, or a side'
    )
  return int(match[1]), int(match[2] or match[1])


def parse_number(option: str, text: str) -> int:
  """Returns the number that an option gives; ValueError if it is none or 0."""
  if not text.isdecimal() or not int(text):
    raise ValueError(f'--{option} {text}: needs a number of at least 1')
  return int(text)
