"""The training loop."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from absl import logging
from clu import metric_writers
from jax.experimental.compilation_cache import compilation_cache

from mixdtp_jax.checkpoints import best, saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.data import train_batches
from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.evaluation.network import report, score_network
from mixdtp_jax.evaluation.score import Row, Scores, mean_row
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.training import preemption, start
from mixdtp_jax.training.log import JsonLines, TrainingLog
from mixdtp_jax.training.run_lock import only_run
from mixdtp_jax.training.step import Step, compile_ahead, make_train_step


def train_and_evaluate(
  config: Recipe, workdir: str, *, check_only: bool = False
) -> TrainState | None:
  """Trains from the newest checkpoint in `workdir`, or from the start.

  Writes metrics for TensorBoard, checkpoints, and after the last update the
  scores of the test images into `workdir`, and prints the scores. All hosts
  call this in the same way; the first one writes. On SIGTERM it saves the
  state and returns.

  Args:
    config: the run's recipe.
    workdir: the run's folder, which all hosts share; created if missing.
    check_only: stop before the first update, when all has been checked.

  Returns:
    The state after config.num_train_steps updates, or after fewer on SIGTERM;
    None with `check_only`.

  Raises:
    ValueError: the configuration contradicts itself, the data, the weights to
      start from or the checkpoints in `workdir`; these are past the last
      update; or the hosts were started differently.
    RuntimeError: another run is active in `workdir`.
    OSError: a checkpoint could not be saved, or has no room.
    FloatingPointError: loss, gradient or parameters are no longer finite.
    CollapseError: the SSIM of the restored images stays at 0.
  """
  config, folder = start.locate(config, workdir)
  mesh = make_mesh(space=config.mesh_space)
  step_fn = make_train_step(config, mesh)
  hosts.check_same('the configuration', repr(config))
  with (
    only_run(folder),
    _compiled_kept(config, folder),
    _closing(
      saving.make_manager(folder, keep=config.keep_checkpoints)
    ) as manager,
  ):
    data = hosts.in_turn(lambda: _prepare(config, folder, manager, mesh))
    known = manager.latest_step() is not None or config.init_from
    if check_only and not known:
      return None
    with preemption.watch() as watch:
      state = start.start_state(manager, config, replicated(mesh))
      if check_only:
        return None
      step_fn = compile_ahead(step_fn, state, config, mesh)
      with _closing(_make_writer(str(folder))) as writer:
        run = _Run(config, folder, mesh, manager, writer, data, watch)
        return run.train(state, step_fn)


class _Data(NamedTuple):
  """Training batches from an update on, and the images to score."""

  start: int
  batches: Iterator[dict[str, jax.Array]]
  test: Pairs
  scored: Pairs  # while training


def _prepare(config, folder, manager, mesh) -> _Data:
  """Opens the data, and checks what can be known before the first update."""
  if hosts.is_first():
    start.remove_leftovers(folder)
    start.check_room(config, folder)
  update = manager.latest_step() or 0
  batches = train_batches.train_batches(config, start_step=update, mesh=mesh)
  test = start.open_scored(config, 'test')
  split = config.keep_best or 'test'
  scored = test if split == 'test' else start.open_scored(config, split)
  return _Data(update, batches, test, scored)


class _Run:
  """A run: what its updates have in common."""

  def __init__(self, config, folder, mesh, manager, writer, data, watch):
    """Takes what `train_and_evaluate` has opened."""
    self._config, self._folder, self._mesh = config, folder, mesh
    self._manager, self._writer = manager, writer
    self._data, self._watch = data, watch
    self._inputs = {}  # scores of the rainy images, made once

  def train(self, state: TrainState, step_fn: Step) -> TrainState:
    """Makes the updates that are left, and scores the last state."""
    config, manager = self._config, self._manager
    first, end = int(state.step), config.num_train_steps
    log = TrainingLog(config, self._writer, manager, start_step=first)
    batches = log.waiting_for(self._batches(first))
    try:
      for step, batch in zip(range(first, end), batches, strict=False):
        state, scalars = step_fn(state, batch)  # state.step is step + 1 now
        log.add(step + 1, scalars)
        self._watch.check()
        if _due(step + 1, config.checkpoint_every_steps, end):
          log.check()
          logging.info('Saving checkpoint %d', step + 1)
          saving.save(manager, state, config)
        if _due(step + 1, config.eval_every_steps, end) and step + 1 < end:
          with log.paused():
            self._evaluate(state)
      if config.keep_best:
        self._evaluate(state)
      saving.wait(manager)
      self._conclude(state)
    except preemption.Preempted:
      log.check()
      self._save_and_tell(state)
    return state

  def _batches(self, first: int) -> Iterator[dict[str, jax.Array]]:
    """Returns the batches from an update on."""
    if first == self._data.start:
      return self._data.batches
    # A damaged checkpoint was passed over.
    return train_batches.train_batches(
      self._config, start_step=first, mesh=self._mesh
    )

  def _evaluate(self, state: TrainState) -> None:
    """Scores a state while training, and keeps it if it is the best."""
    rows = evaluate_state(
      state, self._data.scored, self._config, self._mesh, self._writer,
      self._inputs, self._watch.check
    )  # fmt: skip
    if self._config.keep_best:
      self._keep_if_best(state, rows)

  def _keep_if_best(self, state: TrainState, rows: list[Row]) -> None:
    update, manager = int(state.step), self._manager
    split = self._config.keep_best
    psnr = mean_row(rows).restored['y'].psnr
    known = manager.best
    if math.isnan(psnr) or (
      known
      and known['split'] == split
      and known['update'] in set(manager.all_steps()) - {update}
      and psnr <= known['y_psnr']
    ):
      return
    logging.info('Saving checkpoint %d, the best so far', update)
    saving.save(manager, state, self._config)
    manager.best = {
      'update': update, 'split': split, 'images': len(rows), 'y_psnr': psnr
    }  # fmt: skip
    if hosts.is_first():
      dump_json(manager.best, self._folder / best.FILE)

  def _conclude(self, state: TrainState) -> None:
    """Scores all test images with the last state, and reports the scores."""
    same = self._data.scored is self._data.test
    context = {'step': int(state.step), 'config': as_mapping(self._config)}
    if self._manager.best:
      context['best'] = self._manager.best
    evaluate_state(
      state, self._data.test, self._config, self._mesh, self._writer,
      self._inputs if same else {}, self._watch.check,
      self._folder / 'results', context,
    )  # fmt: skip

  def _save_and_tell(self, state: TrainState) -> None:
    """Saves the state after SIGTERM, and logs how to continue."""
    saving.save(self._manager, state, self._config)
    saving.wait(self._manager)
    logging.info(
      'Stopped by SIGTERM after update %d of %d; the state is in %s. Start the '
      'same command again to continue.',
      int(state.step),
      self._config.num_train_steps,
      self._manager.directory / str(int(state.step)),
    )


@contextlib.contextmanager
def _closing(opened):
  """Works like contextlib.closing, but an error in the body hides later ones.

  On a full disk, for example, close() fails as well.
  """
  try:
    yield opened
  except BaseException:
    with contextlib.suppress(Exception):
      opened.close()
    raise
  opened.close()


def _make_writer(workdir):
  """Returns a writer of TensorBoard's files and of metrics.jsonl.

  The first host writes.
  """
  writers = []
  if hosts.is_first():
    writers = [metric_writers.SummaryWriter(workdir), JsonLines(workdir)]
  return metric_writers.AsyncMultiWriter(writers)


def _due(step: int, every: int, end: int) -> bool:
  return step == end or (every > 0 and step % every == 0)


def _compiled_kept(config, workdir):
  """Keeps compiled programs for the run's next start while the body runs.

  They go to the option's folder, else to that of JAX's own settings, else into
  the workdir.
  """
  usual = jax.config.jax_compilation_cache_dir
  folder = config.compilation_cache_dir or usual
  return _compiling_into(folder or str(pathlib.Path(workdir, 'compiled')))


@contextlib.contextmanager
def _compiling_into(folder):
  usual = jax.config.jax_compilation_cache_dir
  try:
    jax.config.update('jax_compilation_cache_dir', folder)
    # JAX reads the setting only once, unless the cache is reset.
    compilation_cache.reset_cache()
    yield
  finally:
    jax.config.update('jax_compilation_cache_dir', usual)
    compilation_cache.reset_cache()


def evaluate_state(
  state: TrainState,
  pairs: Pairs,
  config: Recipe,
  mesh: jax.sharding.Mesh,
  writer: metric_writers.MetricWriter,
  inputs: dict[str, Scores],
  check: Callable[[], None],
  folder: pathlib.Path | None = None,
  context: dict[str, Any] | None = None,
) -> list[Row]:
  """Scores a state on images, and writes the means and some images.

  Args:
    state: the state; its averaged parameters are scored if it has them.
    pairs: the test images.
    config: the run's configuration; while training, it limits the images.
    mesh: the devices that share the work.
    writer: gets PSNR and SSIM by protocol, and side-by-side images.
    inputs: scores of rainy images that are known; others are added.
    check: called between batches; its error ends the evaluation.
    folder: at the end of a run, the folder for the scores of all test images
      (CSV and JSON) and restored images; the means are printed too. None while
      training.
    context: what results.json says of the state.

  Returns:
    The scores of each image.
  """
  step = int(state.step)
  rows, image = score_network(
    config.model,
    state.eval_params,
    pairs,
    batch_size=config.eval_batch_size,
    limit=config.eval_images if folder is None else 0,
    folder=folder,
    mesh=mesh,
    inputs=inputs,
    check=check,
  )
  writer.write_scalars(step, _mean_scalars(rows))
  writer.write_images(step, {'eval/restored': image[None]})
  score = mean_row(rows).restored['rgb']
  logging.info(
    'Evaluated update %d on %d images: PSNR %.2f dB, SSIM %.4f (rgb)',
    *(step, len(rows), *score),
  )
  if folder is not None and hosts.is_first():
    report(
      rows,
      image,
      folder,
      dataset=pairs.name,
      crop_multiple=config.eval_crop_multiple,
      context=context or {},
    )
  return rows


def _mean_scalars(rows) -> dict[str, float]:
  mean = mean_row(rows)
  return {
    f'eval/{which}_{protocol}_{field}': value
    for which in ('input', 'restored')
    for protocol, score in getattr(mean, which).items()
    for field, value in score._asdict().items()
  }
