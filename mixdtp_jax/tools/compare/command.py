"""Compares one network in JAX and in PyTorch, as the command's options say."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_collections

from mixdtp_jax.data.datasets.registry import open_split
from mixdtp_jax.data.matching import open_folder
from mixdtp_jax.data.pairs import CentreCrops, Pairs
from mixdtp_jax.models.config import AnyConfig, as_mapping, make_model_config
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.recipe import config_file
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.tables import show
from mixdtp_jax.tools.compare import tables
from mixdtp_jax.tools.compare.networks import make_networks
from mixdtp_jax.tools.compare.study import study
from mixdtp_jax.tools.compare.training import crop_batches
from mixdtp_jax.training.state import init_state
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.run import load_run_config


@dataclasses.dataclass(frozen=True)
class Settings:
  """The options of mixdtp compare, as its help explains them; None if unset."""

  out: str
  weights: str | None = None
  random: int | None = None
  steps: int | None = None
  folder: str | None = None
  data: str | None = None
  data_dir: str | None = None
  source: str | None = None
  split: str | None = None
  num_images: int = 2
  size: int = 128
  config: str | None = None
  overrides: Sequence[str] = ()
  train_steps: int = 5
  batch_size: int = 2
  crop: int = 64

  def given(self) -> dict[str, Any]:
    """Returns the options that have a value, by name."""
    options = dataclasses.asdict(self).items()
    return {name: value for name, value in options if value or value == 0}

  def __post_init__(self):
    """Raises ValueError if the options contradict each other."""
    if self.size < 0:
      raise ValueError(f'--size {self.size}: needs 0 or more')
    if self.random is not None and self.steps is not None:
      raise ValueError(
        '--steps goes with --weights; random weights have the model.steps of '
        '--config'
      )
    if self.folder is not None:
      for name in ('data', 'data_dir', 'source', 'split'):
        if getattr(self, name) is not None:
          raise ValueError(
            f'--folder goes without --{name}: leave out one of the two'
          )


def compare_frameworks(**options: Any) -> None:
  """Compares a network in JAX and in PyTorch; prints and writes the result.

  Args:
    **options: the fields of `Settings`.

  Raises:
    FileNotFoundError, ValueError: an option is wrong, or a file is missing.
  """
  settings = Settings(**options)
  # JAX reserves most of a GPU's memory by default; PyTorch needs some of it.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  recipe = _load_recipe(settings)
  recipe.batch_size, recipe.data.crop = settings.batch_size, settings.crop
  with _open_pairs(settings) as pairs:
    images = CentreCrops(pairs, count=settings.num_images, size=settings.size)
  batches = crop_batches(
    images,
    steps=settings.train_steps,
    batch_size=settings.batch_size,
    crop=settings.crop,
    seed=recipe.seed,
  )
  cfg, params = _load_network(recipe, settings)
  recipe.model = ml_collections.ConfigDict(as_mapping(cfg))
  if settings.crop % make_network(cfg).multiple:
    raise ValueError(
      f'--crop {settings.crop}: the network needs a multiple of '
      f'{make_network(cfg).multiple}'
    )
  found = study(make_networks(cfg, params), recipe, images, batches)
  show(tables.summary(found), *tables.tables(found))
  out = pathlib.Path(settings.out)
  print(
    *tables.write_study(found, settings.given(), recipe.to_dict(), out),
    sep='\n',
  )


def _load_recipe(settings: Settings) -> ml_collections.ConfigDict:
  overrides = settings.overrides
  if settings.config is None and settings.weights is not None:
    with contextlib.suppress(FileNotFoundError):  # weights without a run
      run = load_run_config(settings.weights)
      return config_file.override(run, overrides)
  return config_file.load_config_file(settings.config or 'default', overrides)


def _load_network(recipe, settings: Settings) -> tuple[AnyConfig, dict]:
  if settings.weights is not None:
    return load_weights(settings.weights, steps=settings.steps)
  cfg = make_model_config(recipe.model)
  network, optimizer = make_network(cfg), make_optimizer(recipe)
  seed = settings.random
  init = jax.jit(lambda: init_state(seed, network, optimizer).params)
  return cfg, init()


@contextlib.contextmanager
def _open_pairs(settings: Settings) -> Iterator[Pairs]:
  if settings.folder is not None:
    yield open_folder(settings.folder)
    return
  name = settings.data or 'photographs'
  if settings.data_dir is None and name != 'photographs':
    raise ValueError(
      f'--data {name} needs --data_dir, the folder of its prepared copy; or '
      'compare on a plain folder of pairs with --folder'
    )
  with tempfile.TemporaryDirectory() as temporary:
    yield open_split(
      name,
      source=settings.source or '',
      data_dir=settings.data_dir or temporary,
      split=settings.split or 'test',
    )
