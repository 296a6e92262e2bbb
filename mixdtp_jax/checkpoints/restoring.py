"""Restoring of checkpoints: of the newest that is what was saved."""

import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from mixdtp_jax.checkpoints import verifying
from mixdtp_jax.checkpoints.saving import EMA, FORMAT, reason
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.models.config import EXECUTION
from mixdtp_jax.recipe.config_file import flat_config
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.files import NewerFormatError, check_format
from mixdtp_jax.runtime.mesh import place

T = TypeVar('T')


class OtherNetworkError(ValueError):
  """A checkpoint is of another network than the run that restores it."""


def restore_or_init(
  manager: ocp.CheckpointManager,
  config: Recipe,
  init: Callable[[], TrainState],
  sharding: jax.sharding.NamedSharding,
) -> TrainState:
  """Returns the newest readable state, or a fresh one if there is none.

  Damaged checkpoints are moved to WORKDIR/damaged_checkpoints. `init`, which is
  jittable, makes the fresh state. Each array gets the layout `sharding`.

  Raises:
    OtherNetworkError: the checkpoint is of another model or optimizer than
      `config`; the message lists the fields that differ.
    ValueError: there are checkpoints, but none can be read.
  """
  if not manager.all_steps():
    return jax.jit(init, out_shardings=sharding)()
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(init),
  )

  def read(step: int) -> TrainState:
    saved, digests = _described(manager, step)
    _refuse_other_run(manager, step, saved, config)
    trees = {'params': abstract.params, 'opt_state': abstract.opt_state}
    wanted = abstract.ema_params is not None
    if wanted and _has_ema(saved):
      trees[EMA] = abstract.ema_params
    restored = _restore(manager, step, digests, **trees)
    average = restored.get(EMA)
    if wanted and average is None:  # it starts here
      average = jax.tree.map(jnp.copy, restored.params)
    number = place(np.asarray(step, abstract.step.dtype), sharding)
    return TrainState(number, restored.params, restored.opt_state, average)

  state, damaged = newest_readable(manager, read)
  if damaged:
    _set_aside(manager, damaged)
  logging.info('Continuing from the checkpoint of update %d', int(state.step))
  return state


def newest_readable(
  manager: ocp.CheckpointManager,
  read: Callable[[int], T],
  *,
  only: int | None = None,
) -> tuple[T, list[int]]:
  """Reads the newest checkpoint, or the `only` one, that is not damaged.

  There is at least one. Returns what `read`, a function of an update, returned,
  and the newer checkpoints, which are damaged, logged, and left in place.

  Raises:
    OtherNetworkError, NewerFormatError: `read` raised it.
    ValueError: none can be read, and the message says why for each; or a
      checkpoint can be read on some hosts only.
  """
  damaged: dict[int, str] = {}
  updates = manager.all_steps() if only is None else [only]
  for step in sorted(updates, reverse=True):
    path = _path(manager, step)
    problem = ''
    try:
      found = read(step)
    except (OtherNetworkError, NewerFormatError):
      raise
    # For a lost file, orbax raises ValueError, KeyError, FileNotFoundError or a
    # bare Exception. Catching all is safe, because nothing is moved unless an
    # older checkpoint can be read.
    except Exception as error:  # noqa: BLE001
      problem = f'{path}: {reason(error)}'
      logging.error('Damaged checkpoint %s', problem)
    # A host that read another one would wait for the others for ever.
    hosts.check_same(f'what can be read of {path}', str(not problem))
    if not problem:
      return found, list(damaged)
    damaged[step] = problem
  raise ValueError(
    f'none of the {len(damaged)} checkpoints can be read. '
    + '; '.join(damaged.values())
    + '. Restore one from a copy, or start again in another workdir.'
  )


def _set_aside(manager, steps) -> None:
  """Moves damaged checkpoints away, because their updates are saved again."""
  folder = manager.directory.parent / 'damaged_checkpoints'

  def move():
    folder.mkdir(exist_ok=True)
    for step in steps:
      names = itertools.chain(
        [str(step)], (f'{step}-{n}' for n in itertools.count(2))
      )
      free = next(folder / n for n in names if not (folder / n).exists())
      os.rename(_path(manager, step), free)
      logging.error('Moved the damaged checkpoint to %s', free)

  hosts.in_turn(lambda: move() if hosts.is_first() else None)
  manager.reload()


def _has_ema(saved: dict) -> bool:
  return saved.get('ema_decay', 0) > 0  # old checkpoints lack the option


def restore_config(manager: ocp.CheckpointManager, step: int) -> dict:
  """Reads the configuration that a checkpoint was saved with.

  NewerFormatError if a newer version of this package saved it; DamagedError if
  it is not what was saved.
  """
  return _described(manager, step)[0]


def _described(manager, step) -> tuple[dict, dict[str, str] | None]:
  """Returns a checkpoint's configuration, and its digests if it has any."""
  args = ocp.args.Composite(config=ocp.args.JsonRestore())
  saved = manager.restore(step, args=args).config
  path = _path(manager, step)
  facts = {'update': step, 'config': saved}
  digests = verifying.read_digests(path, facts)
  check_format(path, saved.pop('format', 0), FORMAT)
  return saved, digests


def _restore(manager, step, digests, **trees) -> ocp.args.Composite:
  """Reads the arrays of abstract trees, and checks them."""
  ignore_closed_loops()
  items = {k: ocp.args.StandardRestore(tree) for k, tree in trees.items()}
  restored = manager.restore(step, args=ocp.args.Composite(**items))
  found = {name: restored[name] for name in trees}
  verifying.check(_path(manager, step), digests, found)
  return restored


@functools.cache
def ignore_closed_loops() -> None:
  """Hides what orbax leaves behind where it cannot read an array.

  Its reads of other arrays end later, and report to an event loop that is
  closed by then, which Python would print with a traceback.
  """
  usual = sys.unraisablehook

  def hook(failure):
    if 'Event loop is closed' not in str(failure.exc_value):
      usual(failure)

  sys.unraisablehook = hook


def _path(manager, step) -> pathlib.Path:
  return pathlib.Path(manager.directory, str(step))


def restore_params(
  manager: ocp.CheckpointManager, step: int, abstract: dict
) -> dict:
  """Reads a checkpoint's parameters, averaged ones if it has them.

  They lie on this host's first device. DamagedError if they are not what was
  saved.
  """
  saved, digests = _described(manager, step)
  item = EMA if _has_ema(saved) else 'params'
  tree = on_one_device(abstract)
  return _restore(manager, step, digests, **{item: tree})[item]


def on_one_device(abstract: dict) -> dict:
  """Returns abstract arrays that orbax restores on this host's first device."""
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    abstract,
  )


def _refuse_other_run(manager, step, saved, config) -> None:
  fixed, changed = [], []
  # An older checkpoint lacks newer options, which had their defaults.
  old = flat_config(as_mapping(Recipe())) | flat_config(saved)
  for name, now in flat_config(as_mapping(config)).items():
    then = old.get(name)
    if then == now or name.removeprefix('model.') in EXECUTION:
      continue
    difference = f'{name}: saved {then}, now {now}'
    if name.startswith('model.') or name == 'optimizer.name':
      fixed.append(difference)
    else:
      changed.append(difference)
  if fixed:
    raise OtherNetworkError(
      f'the checkpoint of update {step} in {manager.directory} is of another '
      f'network: {"; ".join(fixed)}. Use its configuration, or another '
      'workdir.'
    )
  for difference in changed:
    logging.warning('Changed since update %d: %s', step, difference)
