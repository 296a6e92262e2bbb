"""Compares one network in JAX and in PyTorch, as the command's options say."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import logging

from mixdtp_jax.data.matching import open_folder
from mixdtp_jax.data.pairs import Pairs, centre_crops
from mixdtp_jax.evaluation.results import scores_as_dict
from mixdtp_jax.evaluation.score import mean_row
from mixdtp_jax.measure import machine
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.recipe import config_file
from mixdtp_jax.recipe.knobs import Recipe, as_mapping, make_recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.tables import show
from mixdtp_jax.tools.compare import networks, tables
from mixdtp_jax.torch_reference import inference
from mixdtp_jax.torch_reference.training import check_optimizer
from mixdtp_jax.training.step import init_state
from mixdtp_jax.weights import shipped
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.run import load_run_config


def compare_frameworks(
  *,
  out: str,
  weights: str | None = None,
  random: int | None = None,
  steps: int | None = None,
  config: str | None = None,
  overrides: Sequence[str] = (),
  num_images: int = 2,
  size: int = 128,
  train_steps: int = 5,
  batch_size: int = 2,
  crop: int = 64,
  **data: str | None,
) -> None:
  """Compares a network in JAX and in PyTorch; prints and writes the result.

  The arguments are the options of the command; `data` is of `open_pairs`.
  FileNotFoundError or ValueError if an option is wrong.
  """
  given = {k: v for k, v in locals().items() if k != 'data'} | data
  given = {k: v for k, v in given.items() if v or v == 0}
  if size < 0:
    raise ValueError(f'--size {size}: needs 0 or more')
  if random is not None and steps is not None:
    raise ValueError(
      '--steps goes with --weights; random weights have the model.steps of '
      '--config'
    )
  # JAX reserves most of a GPU's memory by default; PyTorch needs some of it.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  recipe = _load_recipe(config, weights, overrides)
  check_optimizer(recipe.optimizer)
  with open_pairs(**data) as pairs:
    images = centre_crops(pairs, count=num_images, size=size)
  sizes = {'steps': train_steps, 'batch_size': batch_size, 'crop': crop}
  batches = networks.crop_batches(images, **sizes, seed=recipe.seed)
  cfg, params = _load_network(recipe, weights, steps, random or 0)
  if crop % cfg.multiple:
    raise ValueError(
      f'--crop {crop}: the network needs a multiple of {cfg.multiple}'
    )
  cut = dataclasses.replace(recipe.data, crop=crop)
  used: dict[str, Any] = {'model': cfg, 'data': cut, 'batch_size': batch_size}
  recipe = dataclasses.replace(recipe, **used)
  found, restored = _study(cfg, params, recipe, images, batches)
  show(tables.summary(found), *tables.tables(found))
  paths = [pathlib.Path(out, f'compare.{kind}') for kind in ('json', 'html')]
  content = {'settings': given, 'config': as_mapping(recipe), **found}
  dump_json(content, paths[0])
  tables.write_html(paths[1], found, restored, given)
  print(*paths, sep='\n')


def _study(
  cfg: AnyConfig,
  params: dict,
  recipe: Recipe,
  images: Pairs,
  batches: Sequence[networks.Batch],
) -> tuple[dict[str, Any], list[networks.Restored]]:
  """Returns all numbers, as compare.json has them, and the images."""
  environment = machine.describe() | {'precision': 'float32, without TF32'}
  with (
    # By default, a GPU may multiply float32 numbers with fewer bits.
    jax.default_matmul_precision('highest'),
    inference.full_precision(),
  ):
    both = networks.make_networks(cfg, params, recipe.kernels)
    logging.info('Comparing all modules on %d images', len(images))
    stages = networks.stage_differences(both, images)
    logging.info('Scoring the images that both restore')
    ours, theirs, restored = networks.restore_both(both, images)
    logging.info('Compiling the training step')
    training = networks.train_both(both, recipe, batches)
  mean, *scores = (
    {
      'name': one.name,
      'rainy': scores_as_dict(one.input),
      'jax': scores_as_dict(one.restored),
      'torch': scores_as_dict(other.restored),
    }
    for one, other in zip(
      [mean_row(ours), *ours], [mean_row(theirs), *theirs], strict=True
    )
  )
  environment['torch'] = inference.describe()
  found = {'environment': environment, 'stages': stages, 'scores': scores}
  return found | {'mean': mean, 'training': training}, restored


def _load_recipe(
  config: str | None, weights: str | None, overrides: Sequence[str]
) -> Recipe:
  if config is None and weights is not None:
    with contextlib.suppress(FileNotFoundError):  # weights without a run
      run = load_run_config(shipped.locate(weights))
      return config_file.override(make_recipe(run), overrides)
  return config_file.load_recipe(config or 'default', overrides)


def _load_network(
  recipe: Recipe, weights: str | None, steps: int | None, seed: int
) -> tuple[AnyConfig, dict]:
  if weights is not None:
    return load_weights(weights, steps=steps)
  network, optimizer = make_network(recipe.model), make_optimizer(recipe)
  draw = jax.jit(lambda: init_state(seed, network, optimizer).params)
  return recipe.model, draw()


@contextlib.contextmanager
def open_pairs(
  folder: str | None = None, **options: str | None
) -> Iterator[Pairs]:
  """Opens a folder, a data set, or else two photographs with drawn rain.

  The options are 'data', 'data_dir', 'source' and 'split'. FileNotFoundError
  or ValueError if one is wrong.
  """
  given = {name: value for name, value in options.items() if value is not None}
  if folder is not None:
    for name in given:
      raise ValueError(
        f'--folder goes without --{name}: leave out one of the two'
      )
    yield open_folder(folder)
    return
  # Needs TensorFlow, which a folder does not.
  from mixdtp_jax.data.datasets.registry import open_split

  data = given.pop('data', 'photographs')
  if 'data_dir' not in given and data != 'photographs':
    raise ValueError(
      f'--data {data} needs --data_dir, the folder of its prepared copy; or '
      'compare on a plain folder of pairs with --folder'
    )
  with tempfile.TemporaryDirectory() as temporary:
    defaults: dict[str, Any] = {'data_dir': temporary}
    defaults |= {'source': '', 'split': 'test'}
    yield open_split(data, **(defaults | given))
