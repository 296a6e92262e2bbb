"""Saving of checkpoints: WORKDIR/checkpoints/STEP, by orbax.

A checkpoint holds the parameters, their moving average if the run has one, the
optimizer's state, and the run's whole configuration with a format number. It is
complete or absent.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import ml_collections
import orbax.checkpoint as ocp

from mixdtp_jax.checkpoints.state import TrainState

FORMAT = 1  # checkpoints of version 0.1 have no number
EMA = 'ema_params'  # an item that only runs with ema_decay have


class _Manager(ocp.CheckpointManager):
  def reached_preemption(self, step: int) -> bool:
    """Returns False: training/preemption.py watches for preemption.

    Orbax would ask JAX from a thread, after saving, with a step that is in the
    past by then.
    """
    del step
    return False


def make_manager(
  workdir: str | os.PathLike, *, keep: int | None = None
) -> ocp.CheckpointManager:
  """Opens (and creates) the checkpoints of a run for saving.

  Half-saved checkpoints of a killed run are removed, so only one run may do
  this at a time: see training/run_lock.py.

  Args:
    workdir: the run's folder.
    keep: number of newest checkpoints to keep; None keeps all.
  """
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep, create=True, cleanup_tmp_directories=True
  )
  return _Manager(_folder(workdir), options=options)


def open_manager(workdir: str | os.PathLike) -> ocp.CheckpointManager:
  """Opens the checkpoints of a run for reading, even while it trains."""
  options = ocp.CheckpointManagerOptions(create=False)
  return ocp.CheckpointManager(_folder(workdir), options=options)


def _folder(workdir):
  return pathlib.Path(workdir).absolute() / 'checkpoints'


def save(
  manager: ocp.CheckpointManager,
  state: TrainState,
  config: ml_collections.ConfigDict,
) -> None:
  """Starts to save a state under its step; training continues meanwhile.

  A step that is saved already is left alone.

  Raises:
    OSError: this state or the previous one cannot be saved; see `wait`.
  """
  step = int(state.step)
  if step == manager.latest_step():
    return
  items = {
    'params': ocp.args.StandardSave(state.params),
    'opt_state': ocp.args.StandardSave(state.opt_state),
    'config': ocp.args.JsonSave({'format': FORMAT, **config.to_dict()}),
  }
  if state.ema_params is not None:
    items[EMA] = ocp.args.StandardSave(state.ema_params)
  wait(manager)
  with _named_failure(manager, step):
    manager.save(step, args=ocp.args.Composite(**items))


def wait(manager: ocp.CheckpointManager) -> None:
  """Waits until the checkpoint that `save` started is on the disk.

  Raises:
    OSError: it could not be written, as on a full disk; the message names the
      last good checkpoint, which is unchanged.
  """
  with _named_failure(manager, manager.latest_step()):
    manager.wait_until_finished()


@contextlib.contextmanager
def _named_failure(manager, step) -> Iterator[None]:
  try:
    yield
  # ValueError: TensorStore's error for a full disk.
  except (OSError, ValueError) as error:
    manager.reload()
    raise OSError(
      f'the checkpoint of step {step} could not be saved: {reason(error)}; '
      f'{last_good(manager)}. Free or fix the disk, then start the same '
      'command again: it continues from there.'
    ) from error


def last_good(
  manager: ocp.CheckpointManager, *, before: int | None = None
) -> str:
  """Returns a clause that names the newest checkpoint, before a given step."""
  steps = [s for s in manager.all_steps() if before is None or s < before]
  if not steps:
    return 'no checkpoint was saved before'
  return f'the last good checkpoint is {manager.directory / str(max(steps))}'


def reason(error: Exception) -> str:
  """Returns the first line of an error, at most 300 characters."""
  text = str(error).partition('\n')[0]
  return f'{type(error).__name__}: {text[:300]}'
