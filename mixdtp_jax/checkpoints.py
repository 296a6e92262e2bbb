"""Checkpoints of a training run: WORKDIR/checkpoints/STEP, by orbax.

Each holds the parameters, their moving average where the run has one, the
optimizer's state and the run's whole configuration, and is complete or not
there at all.
"""

import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp
from absl import logging

from mixdtp_jax.model.config import EXECUTION
from mixdtp_jax.state import TrainState

_EMA = 'ema_params'  # an item that only runs with ema_decay have


def make_manager(
  workdir: str | os.PathLike, *, keep: int | None = None
) -> ocp.CheckpointManager:
  """Opens (and creates) the checkpoints of a run.

  Args:
    workdir: the run's folder.
    keep: how many of the newest are kept; None is all.
  """
  folder = pathlib.Path(workdir).absolute() / 'checkpoints'
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
  return ocp.CheckpointManager(folder, options=options)


def save(
  manager: ocp.CheckpointManager,
  state: TrainState,
  config: ml_collections.ConfigDict,
) -> None:
  """Starts to save a state under its step; training may go on meanwhile.

  A step that is saved already stays as it is.
  """
  step = int(state.step)
  if step == manager.latest_step():
    return
  items = {
    'params': ocp.args.StandardSave(state.params),
    'opt_state': ocp.args.StandardSave(state.opt_state),
    'config': ocp.args.JsonSave(config.to_dict()),
  }
  if state.ema_params is not None:
    items[_EMA] = ocp.args.StandardSave(state.ema_params)
  manager.save(step, args=ocp.args.Composite(**items))


def restore_or_init(
  manager: ocp.CheckpointManager,
  config: ml_collections.ConfigDict,
  init: Callable[[], TrainState],
  sharding: jax.sharding.Sharding,
) -> TrainState:
  """The newest saved state, or a fresh one where there is none.

  Args:
    manager: of `make_manager`.
    config: of the run that asks.
    init: makes the fresh state; jittable.
    sharding: where each array of the state shall lie.

  Raises:
    ValueError: the newest checkpoint is of another model or optimizer; the
      message lists the fields that differ.
  """
  step = manager.latest_step()
  if step is None:
    return jax.jit(init, out_shardings=sharding)()
  _refuse_other_run(manager, step, config)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(init),
  )
  items = {
    'params': ocp.args.StandardRestore(abstract.params),
    'opt_state': ocp.args.StandardRestore(abstract.opt_state),
  }
  if abstract.ema_params is not None and _has_ema(manager, step):
    items[_EMA] = ocp.args.StandardRestore(abstract.ema_params)
  restored = manager.restore(step, args=ocp.args.Composite(**items))
  logging.info('Continuing from the checkpoint of step %d.', step)
  number = jnp.asarray(step, abstract.step.dtype)
  ema_params = restored.get(_EMA)
  if abstract.ema_params is not None and ema_params is None:
    # The run had no average so far: it begins here.
    ema_params = jax.tree.map(jnp.copy, restored.params)
  return TrainState(
    jax.device_put(number, sharding),
    restored.params,
    restored.opt_state,
    ema_params,
  )


def _has_ema(manager, step):
  return (manager.directory / str(step) / _EMA).exists()


def restore_config(manager: ocp.CheckpointManager) -> dict:
  """The configuration that the newest checkpoint was saved with."""
  args = ocp.args.Composite(config=ocp.args.JsonRestore())
  return manager.restore(manager.latest_step(), args=args).config


def restore_params(manager: ocp.CheckpointManager, abstract: dict) -> dict:
  """The parameters of the newest checkpoint, on one device of this host.

  Their moving average, where the run has one.
  """
  step = manager.latest_step()
  item = _EMA if _has_ema(manager, step) else 'params'
  args = ocp.args.StandardRestore(on_one_device(abstract))
  return manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]


def on_one_device(abstract: dict) -> dict:
  """Abstract arrays, to be restored on this host's first device."""
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    abstract,
  )


def _refuse_other_run(manager, step, config) -> None:
  saved = ml_collections.ConfigDict(restore_config(manager))
  fixed, changed = [], []
  for name, now in flat_config(config).items():
    then = flat_config(saved).get(name)
    if then == now or name.removeprefix('model.') in EXECUTION:
      continue
    difference = f'{name}: saved {then}, now {now}'
    if name.startswith('model.') or name == 'optimizer.name':
      fixed.append(difference)
    else:
      changed.append(difference)
  if fixed:
    raise ValueError(
      f'the checkpoint of step {step} in {manager.directory} is of another '
      f'network: {"; ".join(fixed)}. Use its configuration, or another '
      'workdir.'
    )
  for difference in changed:
    logging.warning('Changed since step %d: %s', step, difference)


def flat_config(config: ml_collections.ConfigDict, prefix: str = '') -> dict:
  """Dotted name -> value; JSON has no tuples, so sequences are lists."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      flat |= flat_config(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = _with_lists(value)
  return flat


def _with_lists(value):
  if isinstance(value, tuple | list):
    return [_with_lists(part) for part in value]
  return value
