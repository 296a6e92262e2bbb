"""What a run starts from, and what is checked before its first update."""

import dataclasses
import functools
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
from absl import logging

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.data.datasets.registry import open_split
from mixdtp_jax.data.mixture import open_mixture
from mixdtp_jax.data.pairs import Pairs, cut_to_multiples
from mixdtp_jax.evaluation.network import check_sizes
from mixdtp_jax.models.factory import abstract_params, make_network
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.files import is_writable, local_path
from mixdtp_jax.runtime.mesh import place
from mixdtp_jax.training.step import init_state
from mixdtp_jax.weights.load import load_params


def locate(config: Recipe, workdir: str) -> tuple[Recipe, pathlib.Path]:
  """Returns a recipe with its folders named in full, and the workdir.

  ValueError if a folder is a URL, or orbax cannot save in the workdir.
  """
  folder = pathlib.Path(local_path(workdir)).absolute()
  saving.check_path(folder)

  def full(path: str) -> str:
    return os.path.abspath(local_path(path)) if path else ''

  data = dataclasses.replace(
    config.data,
    # In full, because `eval` may be started elsewhere.
    source=full(config.data.source),
    data_dir=full(config.data.data_dir) or str(folder / 'data'),
  )
  config = dataclasses.replace(
    config,
    data=data,
    init_from=local_path(config.init_from),
    compilation_cache_dir=local_path(config.compilation_cache_dir),
  )
  return config, folder


def remove_leftovers(workdir: pathlib.Path) -> None:
  """Removes what a killed run has half-written; no other run may be active."""
  results = workdir / 'results'
  for left in (*workdir.glob('.writing-*'), *results.rglob('.writing-*')):
    shutil.rmtree(left, ignore_errors=True)
    logging.info('Removed %s, which a killed run has left', left)


def open_scored(config: Recipe, split: str) -> Pairs:
  """Opens the images of a split that are scored, and checks their sizes.

  Errors are those of `open_split`; ValueError, too, if an image is too small.
  """
  data = config.data
  whole = open_split(
    data.name, source=data.source, data_dir=data.data_dir, split=split
  )
  pairs = cut_to_multiples(whole, config.eval_crop_multiple)
  check_sizes(pairs)
  return pairs


def check_workdir(config: Recipe, workdir: pathlib.Path, update: int) -> None:
  """Raises OSError if the results or a further checkpoint cannot be written."""
  results = workdir / 'results'
  for folder in (results, results / 'images'):
    if not is_writable(folder):
      raise PermissionError(
        f'{folder}: nothing can be written there; make that possible, or use '
        'another workdir'
      )
  params = abstract_params(config.model)
  moments = jax.eval_shape(make_optimizer(config).init, params)
  parts = [params, moments] + [params] * (config.ema_decay > 0)
  need = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts))
  free = shutil.disk_usage(workdir).free
  if free < need and update < config.num_train_steps:
    raise OSError(
      f'{workdir} has {free / 1e6:,.1f} MB free, and a checkpoint needs '
      f'{need / 1e6:,.1f} MB: make room, or take another workdir'
    )


def checked(
  config: Recipe, workdir: pathlib.Path, update: int, test: Pairs
) -> str:
  """Returns one line on a run that can start; its data are prepared."""
  free = shutil.disk_usage(workdir).free
  return (
    f'Checked: the run can start: {len(open_mixture(config.data, 1))} images '
    f'to train on, {len(test)} to test, {config.num_train_steps - update} '
    f'updates to make, {free / 1e9:,.1f} GB free in {workdir}.'
  )


def start_state(
  manager: saving.Manager,
  config: Recipe,
  sharding: jax.sharding.NamedSharding,
) -> TrainState:
  """Returns the newest saved state, or a fresh one of update 0.

  The fresh state has the weights of config.init_from, else weights drawn from
  config.seed. FileNotFoundError or ValueError if there are no such weights, if
  they or the checkpoint are of another network, or past the last update.
  """
  cfg = config.model
  given = None
  if manager.latest_step() is None:
    if config.init_from:
      given = place(load_params(config.init_from, cfg), sharding)
    else:
      logging.info('Drawing the weights of %s', cfg.name)
  init = functools.partial(
    init_state,
    config.seed,
    make_network(cfg),
    make_optimizer(config),
    ema=config.ema_decay > 0,
  )
  state = restoring.restore_or_init(manager, config, init, sharding)
  if given is not None:
    # The optimizer's fresh state is zeros, whatever the weights.
    state = dataclasses.replace(state, params=given)
    if state.ema_params is not None:
      average = jax.tree.map(jnp.copy, given)
      state = dataclasses.replace(state, ema_params=average)
  if int(state.step) > config.num_train_steps:
    raise ValueError(
      f'{manager.directory.parent} has made {state.step} updates already, more '
      f'than num_train_steps = {config.num_train_steps}: raise it, or use '
      'another workdir'
    )
  return state
