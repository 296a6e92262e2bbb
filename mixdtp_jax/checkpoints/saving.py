"""Saving of checkpoints: WORKDIR/checkpoints/UPDATE, by orbax.

A checkpoint holds the parameters, their moving average if the run has one, the
optimizer's state, the run's whole configuration with a format number, and
digests of all of it. It is complete or absent: it gets its name when it has
been read back and found to be what the devices held.
"""

import contextlib
import glob
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import orbax.checkpoint as ocp

from mixdtp_jax.checkpoints import verifying
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.files import DAMAGED, dump_json, load_json

FORMAT = 1  # checkpoints of version 0.1 have no number
BEST = 'best.json'  # in the workdir: the record of the best checkpoint
EMA = 'ema_params'  # an item that only runs with ema_decay have


class Manager(ocp.CheckpointManager):
  """Checkpoints that are verified before they count, and old ones deleted.

  Orbax deletes old checkpoints only after a save has succeeded, and `_verify`
  is a part of that save. `best` is the record of the best checkpoint, which is
  kept; see `read_best`. `candidate` is that of a better one that is being
  saved; it takes over when the save is complete. `saving` is the update that is
  saved next, with its arrays on the host and its configuration.
  """

  def __init__(self, workdir: str | os.PathLike, keep: int = 0):
    """Opens, and creates, the checkpoints of a run for saving.

    Half-saved checkpoints of a killed run are removed, so only one run may do
    this at a time: see training/run_lock.py. The newest `keep` checkpoints stay
    beside the best one; 0 keeps all. ValueError: see `check_path`.
    """
    check_path(workdir)
    self.best = read_best(workdir)
    self.candidate: dict[str, Any] | None = None
    self.saving: tuple[int, dict[str, Any], dict[str, Any]] | None = None
    self._keep = keep
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self,
      create=True,
      cleanup_tmp_directories=True,
      async_options=ocp.options.AsyncOptions(
        post_finalization_callback=self._verify
      ),
    )
    super().__init__(_folder(workdir), options=options)

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Returns which checkpoints orbax keeps: the newest ones and the best."""
    del context
    kept = {c.step for c in checkpoints[-self._keep :]}  # -0 is all
    if self.best:
      kept.add(self.best['update'])
    return [c.step in kept for c in checkpoints]

  def wait_until_finished(self) -> None:
    """Waits for the last save, as orbax does; then its record may be true."""
    candidate, self.candidate = self.candidate, None  # lost with a failed save
    super().wait_until_finished()
    if candidate:
      self.best = candidate
      if hosts.is_first():
        path = pathlib.Path(self.directory.parent, BEST)
        dump_json(self.best, path, sealed=True)

  def reached_preemption(self, step: int) -> bool:
    """Returns False: training/preemption.py watches for preemption.

    Orbax would ask JAX from a thread, with a step that is in the past by then.
    """
    del step
    return False

  def _verify(self) -> None:
    """Reads back what was written, and adds its digests.

    Orbax calls it in a thread of the first host, before it renames the folder.
    """
    assert self.saving is not None
    (update, trees, config), self.saving = self.saving, None
    (folder,) = self.directory.glob(f'{update}.orbax-checkpoint-tmp*')
    try:
      if bad := verifying.not_finite(trees):
        raise not_finite(self, update, f'{bad} is not finite')
      facts = {'update': update, 'config': config}
      verifying.write_digests(folder, trees, facts)
      facts['config'] = ocp.JsonCheckpointHandler().restore(folder / 'config')
      check_readable(folder, facts, trees)
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise


def check_readable(
  folder: os.PathLike, facts: Any, trees: Mapping[str, Any]
) -> None:
  """Checks that trees of arrays, by name, can be read from a folder as saved.

  Arguments are those of `write_digests`, but the facts are what was read.
  DamagedError, or what orbax raises, if they cannot.
  """
  path = ocp.utils.epath.Path(folder)
  digests = verifying.read_digests(pathlib.Path(folder), facts)
  with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
    for name, tree in trees.items():
      args = ocp.args.StandardRestore(verifying.on_host(tree))
      found = handler.restore(path / name, args=args)
      verifying.check(pathlib.Path(folder), digests, {name: found})


def read_best(workdir: str | os.PathLike) -> dict[str, Any] | None:
  """Reads {'update', 'split', 'images', 'y_psnr'}; None if there is no record.

  ValueError if the file is damaged.
  """
  path = pathlib.Path(workdir, BEST)
  try:
    found = load_json(path)
    return {
      'update': int(found['update']),
      'split': str(found['split']),
      'images': int(found['images']),
      'y_psnr': float(found['y_psnr']),
    }
  except FileNotFoundError:
    return None
  except DAMAGED:
    raise ValueError(
      f'{path} is damaged: delete it, and training names the best again'
    ) from None


def open_manager(workdir: str | os.PathLike) -> ocp.CheckpointManager:
  """Opens the checkpoints of a run for reading, even while it trains."""
  options = ocp.CheckpointManagerOptions(create=False)
  return ocp.CheckpointManager(_folder(workdir), options=options)


def _folder(workdir):
  return pathlib.Path(workdir).absolute() / 'checkpoints'


def check_path(path: str | os.PathLike) -> None:
  """Raises ValueError for a path that orbax would take for a pattern."""
  text = os.path.abspath(path)
  try:
    text.encode()
  except UnicodeEncodeError:
    text += '*'
  if '\\' in text or glob.escape(text) != text:
    raise ValueError(
      f'{os.path.abspath(path)!a}: arrays cannot be saved in a folder whose '
      'path contains [ * ? or a backslash, or is not UTF-8: choose another'
    )


def save(manager: Manager, state: TrainState, config: Recipe) -> None:
  """Starts to save a state under its update; training continues meanwhile.

  An update that is saved already is left alone. OSError if this state cannot be
  saved; if the previous one could not, see `wait`.
  """
  update = int(state.step)
  if update == manager.latest_step():
    return
  trees = {'params': state.params, 'opt_state': state.opt_state}
  if state.ema_params is not None:
    trees[EMA] = state.ema_params
  saved = {'format': FORMAT, **as_mapping(config)}
  items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
  items['config'] = ocp.args.JsonSave(saved)
  wait(manager)
  with _named_failure(manager, update):
    if hosts.is_first():
      manager.saving = update, verifying.on_host(trees), saved
    manager.save(update, args=ocp.args.Composite(**items))


def settle(manager: Manager) -> None:
  """Records a better checkpoint if its save is complete; does not wait."""
  if manager.candidate and not manager.is_saving_in_progress():
    wait(manager)


def wait(manager: ocp.CheckpointManager) -> None:
  """Waits until the checkpoint that `save` started is verified and complete.

  Raises:
    FloatingPointError: the state that was to be saved is not finite.
    OSError: it could not be written, as on a full disk, or read back. Both
      messages name the last good checkpoint, which is unchanged.
  """
  with _named_failure(manager, manager.latest_step()):
    manager.wait_until_finished()


@contextlib.contextmanager
def _named_failure(manager, update) -> Iterator[None]:
  try:
    yield
  # ValueError: TensorStore's error for a full disk.
  except (OSError, ValueError) as error:
    manager.reload()
    raise OSError(
      f'the checkpoint of update {update} could not be saved: {reason(error)}; '
      f'{last_good(manager)}. Free or fix the disk, then start the same '
      'command again: it continues from there.'
    ) from error


def not_finite(
  manager: ocp.CheckpointManager, update: int, found: str
) -> FloatingPointError:
  """Returns the error of an update that has made something not finite."""
  return FloatingPointError(
    f'update {update}: {found}; {last_good(manager, before=update)}. Start '
    'again from there with a smaller schedule.learning_rate or with '
    'optimizer.clip_norm set.'
  )


def last_good(
  manager: ocp.CheckpointManager, *, before: int | None = None
) -> str:
  """Returns a clause that names the newest checkpoint, before an update."""
  found = [s for s in manager.all_steps() if before is None or s < before]
  if not found:
    return 'no checkpoint was saved before'
  return f'the last good checkpoint is {manager.directory / str(max(found))}'


def reason(error: BaseException) -> str:
  """Returns the first line of an error, at most 300 characters."""
  text = str(error).partition('\n')[0]
  return f'{type(error).__name__}: {text[:300]}'
