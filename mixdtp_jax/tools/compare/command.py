"""The command: opens what it is told to compare, compares, and reports."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
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
from mixdtp_jax.runtime.console import set_up_logging
from mixdtp_jax.tools.compare import tables
from mixdtp_jax.tools.compare.networks import make_networks
from mixdtp_jax.tools.compare.study import study
from mixdtp_jax.tools.compare.training import crop_batches
from mixdtp_jax.training.state import init_state
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.run import load_run_config


def compare_frameworks(
  *,
  weights: str | None,
  random: int | None,
  steps: int | None,
  folder: str | None,
  data: str | None,
  data_dir: str | None,
  source: str | None,
  split: str | None,
  num_images: int,
  size: int,
  config: str | None,
  train_steps: int,
  batch_size: int,
  crop: int,
  repeats: int,
  out: str,
) -> None:
  """Compares a network in JAX and in PyTorch; prints and writes the result.

  Args:
    weights: see `weights.load_weights`; None draws them.
    random: seed to draw the weights of the recipe's model from.
    steps: iterations of the progressive refinement; with `weights` alone.
    folder: of pairs; see `folders.open_folder`.
    data: key of `datasets.DATASETS`, where there is no folder; None is
      'photographs'.
    data_dir: its prepared copy; None prepares the photographs for this once.
    source: its files as published, where they are not prepared yet.
    split: 'train' or 'test'; None is 'test'.
    num_images: how many images are compared, at most.
    size: their longest side in pixels (the centre is cut out); 0 takes them
      whole.
    config: file of the recipe; None is the run's own where `weights` is a run,
      else configs/default.py.
    train_steps: updates.
    batch_size: images an update.
    crop: side of the training crops in pixels, a multiple of what the network
      needs.
    repeats: runs of each that are timed.
    out: folder for compare.json and compare.html.

  Raises:
    FileNotFoundError, ValueError: a setting does not fit, or what it names is
      not there.
  """
  # For checks and the record: what was not left open, under the flags' names.
  settings = {k: v for k, v in locals().items() if v is not None}
  _check(settings)
  set_up_logging()
  # JAX takes most of a GPU's memory when it starts; PyTorch needs some too.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  recipe = _load_recipe(config, weights)
  recipe.batch_size, recipe.data.crop = batch_size, crop
  with _opened(folder, data, data_dir, source, split) as pairs:
    images = CentreCrops(pairs, count=num_images, size=size)
  batches = crop_batches(
    images,
    steps=train_steps,
    batch_size=batch_size,
    crop=crop,
    seed=recipe.seed,
  )
  cfg, params = _load_network(recipe, weights, random, steps)
  recipe.model = ml_collections.ConfigDict(as_mapping(cfg))
  if crop % make_network(cfg).multiple:
    raise ValueError(
      f'--crop {crop}: the network needs a multiple of '
      f'{make_network(cfg).multiple}'
    )
  found = study(make_networks(cfg, params), recipe, images, batches, repeats)
  print(tables.format_tables(found))
  for path in tables.write_study(out, found, settings, recipe.to_dict()):
    print(path)


def _check(settings: dict[str, Any]) -> None:
  """Raises ValueError for settings that do not fit."""
  for name in ('num_images', 'train_steps', 'batch_size', 'repeats', 'crop'):
    if settings[name] < 1:
      raise ValueError(f'--{name} {settings[name]}: needs at least 1')
  if settings['size'] < 0:
    raise ValueError(f'--size {settings["size"]}: needs 0 or more')
  if ('weights' in settings) == ('random' in settings):
    raise ValueError('needs either --weights, or --random with a seed')
  if 'random' in settings and 'steps' in settings:
    raise ValueError(
      '--steps goes with --weights; random ones have the model.steps of '
      '--config'
    )
  others = [n for n in ('data', 'data_dir', 'source', 'split') if n in settings]
  if 'folder' in settings and others:
    raise ValueError(
      f'--folder needs no --{others[0]}: drop the one or the other'
    )


def _load_recipe(
  file: str | None, weights: str | None
) -> ml_collections.ConfigDict:
  if file is None and weights is not None:
    with contextlib.suppress(FileNotFoundError):  # weights that are no run
      return load_run_config(weights)
  return config_file.load_config_file(file or config_file.DEFAULT)


def _load_network(recipe, weights, random, steps) -> tuple[AnyConfig, dict]:
  if weights is not None:
    return load_weights(weights, steps=steps)
  cfg = make_model_config(recipe.model)
  network, optimizer = make_network(cfg), make_optimizer(recipe)
  init = jax.jit(lambda: init_state(random, network, optimizer).params)
  return cfg, init()


@contextlib.contextmanager
def _opened(folder, data, data_dir, source, split) -> Iterator[Pairs]:
  """The pairs that the settings name."""
  if folder is not None:
    yield open_folder(folder)
    return
  name = data or 'photographs'
  if data_dir is None and name != 'photographs':
    raise ValueError(
      f'--data {name} needs --data_dir, the folder of its prepared copy; or '
      'compare on a plain folder of pairs with --folder'
    )
  with tempfile.TemporaryDirectory() as once:
    yield open_split(
      name,
      source=source or '',
      data_dir=data_dir or once,
      split=split or 'test',
    )
