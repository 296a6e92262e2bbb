"""Restoring of checkpoints.

If orbax cannot read the newest checkpoint, the previous one is used. Orbax
notices lost and truncated files, but not every changed bit.
"""

import itertools
import os
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from mixdtp_jax.checkpoints.saving import EMA, FORMAT, reason
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.models.config import EXECUTION
from mixdtp_jax.recipe.config_file import flat_config
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.formats import NewerFormatError, check_format
from mixdtp_jax.runtime.mesh import place

T = TypeVar('T')


class OtherNetworkError(ValueError):
  """A checkpoint is of another network than the run that restores it."""


def restore_or_init(
  manager: ocp.CheckpointManager,
  config: ml_collections.ConfigDict,
  init: Callable[[], TrainState],
  sharding: jax.sharding.Sharding,
) -> TrainState:
  """Returns the newest readable state, or a fresh one if there is none.

  Damaged checkpoints are moved to WORKDIR/damaged_checkpoints.

  Args:
    manager: the result of `make_manager`.
    config: the configuration of the run that continues.
    init: makes the fresh state; jittable.
    sharding: the layout of each array of the state.

  Raises:
    OtherNetworkError: the checkpoint is of another model or optimizer; the
      message lists the fields that differ.
    ValueError: there are checkpoints, but none can be read.
  """
  if not manager.all_steps():
    return jax.jit(init, out_shardings=sharding)()
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(init),
  )

  def read(step: int) -> TrainState:
    saved = restore_config(manager, step)
    _refuse_other_run(manager, step, saved, config)
    items = {
      'params': ocp.args.StandardRestore(abstract.params),
      'opt_state': ocp.args.StandardRestore(abstract.opt_state),
    }
    if abstract.ema_params is not None and _has_ema(saved):
      items[EMA] = ocp.args.StandardRestore(abstract.ema_params)
    restored = manager.restore(step, args=ocp.args.Composite(**items))
    average = restored.get(EMA)
    if abstract.ema_params is not None and average is None:
      # The run had no average so far: it starts here.
      average = jax.tree.map(jnp.copy, restored.params)
    number = place(np.asarray(step, abstract.step.dtype), sharding)
    return TrainState(number, restored.params, restored.opt_state, average)

  state, damaged = newest_readable(manager, read)
  _set_aside(manager, damaged)
  logging.info('Continuing from the checkpoint of step %d.', int(state.step))
  return state


def newest_readable(
  manager: ocp.CheckpointManager, read: Callable[[int], T]
) -> tuple[T, list[int]]:
  """Reads the newest checkpoint that is not damaged.

  Args:
    manager: has at least one checkpoint.
    read: a function of a step, which reads from that checkpoint.

  Returns:
    The result of `read`, and the newer steps, which are damaged. They have been
    logged and are left in place.

  Raises:
    OtherNetworkError, NewerFormatError: `read` raised it.
    ValueError: none can be read; the message says why for each.
  """
  damaged = {}
  for step in sorted(manager.all_steps(), reverse=True):
    path = manager.directory / str(step)
    try:
      return read(step), list(damaged)
    except (OtherNetworkError, NewerFormatError):
      raise
    # For a lost file, orbax raises ValueError, KeyError, FileNotFoundError or a
    # bare Exception. Catching all is safe, because nothing is moved unless an
    # older checkpoint can be read.
    except Exception as error:  # noqa: BLE001
      damaged[step] = f'{path}: {reason(error)}'
      logging.error('Damaged checkpoint %s', damaged[step])
  raise ValueError(
    f'none of the {len(damaged)} checkpoints can be read. '
    + '; '.join(damaged.values())
    + '. Restore one from a copy, or start again in another workdir.'
  )


def _set_aside(manager, steps) -> None:
  """Moves damaged checkpoints away, because their steps are saved again."""
  if not steps:
    return
  folder = manager.directory.parent / 'damaged_checkpoints'

  def move():
    folder.mkdir(exist_ok=True)
    for step in steps:
      names = itertools.chain(
        [str(step)], (f'{step}-{n}' for n in itertools.count(2))
      )
      free = next(folder / n for n in names if not (folder / n).exists())
      os.rename(manager.directory / str(step), free)
      logging.error('Moved the damaged checkpoint to %s', free)

  # This also waits until no host reads them any more.
  hosts.check_same('the list of damaged checkpoints', str(steps))
  hosts.in_turn(lambda: move() if hosts.is_first() else None)
  manager.reload()


def _has_ema(saved: dict) -> bool:
  # Old checkpoints do not have this option.
  return saved.get('ema_decay', 0) > 0


def restore_config(manager: ocp.CheckpointManager, step: int) -> dict:
  """Reads the configuration that a checkpoint was saved with.

  Raises:
    NewerFormatError: a newer version of this package saved it.
  """
  args = ocp.args.Composite(config=ocp.args.JsonRestore())
  saved = manager.restore(step, args=args).config
  path = manager.directory / str(step)
  check_format(path, saved.pop('format', 0), FORMAT)
  return saved


def restore_params(
  manager: ocp.CheckpointManager, step: int, abstract: dict
) -> dict:
  """Reads a checkpoint's parameters, averaged ones if it has them.

  They are placed on this host's first device.
  """
  item = EMA if _has_ema(restore_config(manager, step)) else 'params'
  args = ocp.args.StandardRestore(on_one_device(abstract))
  return manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]


def on_one_device(abstract: dict) -> dict:
  """Returns abstract arrays that orbax restores on this host's first device."""
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    abstract,
  )


def _refuse_other_run(manager, step, saved, config) -> None:
  saved = ml_collections.ConfigDict(saved)
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
    raise OtherNetworkError(
      f'the checkpoint of step {step} in {manager.directory} is of another '
      f'network: {"; ".join(fixed)}. Use its configuration, or another '
      'workdir.'
    )
  for difference in changed:
    logging.warning('Changed since step %d: %s', step, difference)
