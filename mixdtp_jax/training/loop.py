"""The training loop."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator

import jax
from absl import logging
from clu import metric_writers
from jax.experimental.compilation_cache import compilation_cache

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.data import train_batches
from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.evaluation.network import report, score_network
from mixdtp_jax.evaluation.score import Row, Scores, mean_row
from mixdtp_jax.recipe.knobs import Recipe, as_mapping
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.training import preemption, start
from mixdtp_jax.training.log import JsonLines, TrainingLog
from mixdtp_jax.training.run_lock import only_run
from mixdtp_jax.training.step import Step, compile_ahead, make_train_step

_UNTRACED = 10  # first updates of a start, which are never traced


def train_and_evaluate(
  config: Recipe, workdir: str, *, check_only: bool = False, profile: int = 0
) -> TrainState | None:
  """Trains from the newest checkpoint in `workdir`, or from the start.

  Writes metrics, checkpoints, and after the last update the scores of the test
  images into `workdir`, and prints the scores. All hosts call this in the same
  way, with a folder that they share; the first one writes. `profile` is a
  number of updates to trace. With `check_only`, everything is checked, a line
  says so, and None is returned.

  Returns:
    The state after config.num_train_steps updates, or after fewer on SIGTERM.

  Raises:
    ValueError: the configuration contradicts itself, the data, the weights to
      start from or the checkpoints in `workdir`, or the hosts were started
      differently.
    RuntimeError: another run is active in `workdir`.
    OSError: a checkpoint could not be saved, or has no room.
    FloatingPointError, CollapseError: see `Guards`.
  """
  if profile and config.num_train_steps < (least := _UNTRACED + profile):
    raise ValueError(
      f'--profile {profile}: the first {_UNTRACED} updates are not traced, so '
      f'num_train_steps must be at least {least}'
    )
  config, folder = start.locate(config, workdir)
  mesh = make_mesh(space=config.mesh_space)
  step_fn = make_train_step(config, mesh)
  hosts.check_same('the configuration', repr(config))
  with (
    only_run(folder),
    _compiled_kept(config, folder),
    _closing(saving.Manager(folder, config.keep_checkpoints)) as manager,
    preemption.watch() as watch,
  ):
    latest = manager.latest_step()
    batches, test, scored = hosts.in_turn(
      lambda: _prepare(config, folder, latest or 0, mesh)
    )
    if check_only:
      if latest is not None or config.init_from:
        start.start_state(manager, config, replicated(mesh))
      if hosts.is_first():
        print(start.checked(config, folder, latest or 0, test))
      return None
    state = start.start_state(manager, config, replicated(mesh))
    if (first := int(state.step)) != (latest or 0):  # that one was damaged
      batches = train_batches.train_batches(config, start_step=first, mesh=mesh)
    compiled = compile_ahead(step_fn, state, config, mesh)
    with _closing(_make_writer(str(folder))) as writer:
      run = _Run(
        config, folder, mesh, manager, watch, writer, test, scored, profile
      )
      return run.train(state, compiled, batches)


def _prepare(config, folder, update, mesh):
  """Checks what can be known before the first update.

  Returns batches from `update` on, the test images, and those that training
  scores.
  """
  if hosts.is_first():
    start.remove_leftovers(folder)
    start.check_workdir(config, folder, update)
  batches = train_batches.train_batches(config, start_step=update, mesh=mesh)
  test = start.open_scored(config, 'test')
  split = config.keep_best
  chosen = split and split != 'test'
  return batches, test, start.open_scored(config, split) if chosen else test


@dataclasses.dataclass
class _Run:
  """A run, when all is open."""

  config: Recipe
  folder: pathlib.Path
  mesh: jax.sharding.Mesh
  manager: saving.Manager
  watch: preemption.PreemptionWatch
  writer: metric_writers.MetricWriter
  test: Pairs
  scored: Pairs  # while training
  profile: int  # updates to trace
  # Scores of the rainy images, made once.
  inputs: dict[str, Scores] = dataclasses.field(default_factory=dict)

  def train(
    self,
    state: TrainState,
    step_fn: Step,
    batches: Iterator[dict[str, jax.Array]],
  ) -> TrainState:
    """Makes the updates that are left, and scores the last state."""
    config, manager = self.config, self.manager
    first, end = int(state.step), config.num_train_steps
    log = TrainingLog(config, self.writer, manager)
    batches = log.waiting_for(batches)
    try:
      for step, batch in zip(range(first, end), batches, strict=False):
        state, scalars = step_fn(state, batch)  # state.step is step + 1 now
        log.add(step + 1, scalars)
        if self.profile and hosts.is_first():
          self.trace(step + 1, first, log)
        self.watch.check()
        if _due(step + 1, config.checkpoint_every_steps, end):
          log.check()
          logging.info('Saving checkpoint %d', step + 1)
          saving.save(manager, state, config)
        saving.settle(manager)
        if _due(step + 1, config.eval_every_steps, end) and step + 1 < end:
          with log.paused():
            self.evaluate(state)
      if config.keep_best:
        self.evaluate(state)
      saving.wait(manager)
      inputs = self.inputs if self.scored is self.test else {}
      self.score(state, self.test, inputs, self.folder / 'results')
    except preemption.Preempted:
      log.check()
      self.save_and_tell(state)
    return state

  def trace(self, update: int, first: int, log: TrainingLog) -> None:
    """Begins or ends the trace after an update, if it is the one for that."""
    begin = first + _UNTRACED
    end = begin + self.profile
    if end > self.config.num_train_steps:
      logging.warning('Too few updates are left to trace %d', self.profile)
      self.profile = 0
    elif update == begin:
      log.check()
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # tracing Python's calls takes time
      jax.profiler.start_trace(self.folder, profiler_options=options)
    elif update == end:
      log.check()
      jax.profiler.stop_trace()
      logging.info(
        'Updates %d to %d are traced in %s; tensorboard --logdir=%s shows them',
        *(begin + 1, end, self.folder / 'plugins/profile', self.folder),
      )

  def evaluate(self, state: TrainState) -> None:
    """Scores a state while training, and keeps it if it is the best."""
    rows = self.score(state, self.scored, self.inputs, None)
    split = self.config.keep_best
    known = self.manager.candidate or self.manager.best
    psnr = mean_row(rows).restored['y'].psnr
    if not split or math.isnan(psnr):
      return
    update = int(state.step)
    if (
      known
      and known['split'] == split
      and known['update'] in set(self.manager.all_steps()) - {update}
      and psnr <= known['y_psnr']
    ):
      return
    logging.info('Saving checkpoint %d, the best so far', update)
    saving.save(self.manager, state, self.config)
    found = {'update': update, 'split': split}
    found |= {'images': len(rows), 'y_psnr': psnr}
    self.manager.candidate = found

  def score(
    self,
    state: TrainState,
    pairs: Pairs,
    inputs: dict[str, Scores],
    folder: pathlib.Path | None,
  ) -> list[Row]:
    """Scores a state on images, and writes the means and some images.

    `inputs` gets the scores of the rainy images. Without `folder`,
    config.eval_images are scored; with it, all are, and it gets the results.
    """
    step, config = int(state.step), self.config
    rows, image = score_network(
      config.model,
      state.eval_params,
      pairs,
      batch_size=config.eval_batch_size,
      limit=config.eval_images if folder is None else 0,
      folder=folder,
      mesh=self.mesh,
      kernels=config.kernels,
      often=1,  # a run that continues after a kill has the same scores
      inputs=inputs,
      check=self.watch.check,
    )
    self.writer.write_scalars(step, _mean_scalars(rows))
    self.writer.write_images(step, {'eval/restored': image[None]})
    score = mean_row(rows).restored['rgb']
    logging.info(
      'Evaluated update %d on %d images: PSNR %.2f dB, SSIM %.4f (rgb)',
      *(step, len(rows), *score),
    )
    if folder is not None and hosts.is_first():
      context = {'step': step, 'config': as_mapping(config)}
      report(
        rows,
        image,
        folder,
        dataset=pairs.name,
        crop_multiple=config.eval_crop_multiple,
        context=context | {'best': self.manager.best},
      )
    return rows

  def save_and_tell(self, state: TrainState) -> None:
    """Saves the state after SIGTERM, and logs how to continue."""
    saving.save(self.manager, state, self.config)
    saving.wait(self.manager)
    update, end = int(state.step), self.config.num_train_steps
    logging.info(
      'Stopped by SIGTERM after update %d of %d; the state is in %s. Start the '
      'same command again to continue.',
      *(update, end, self.manager.directory / str(update)),
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
  """Returns the writer of TensorBoard files and metrics.jsonl."""
  writers = []
  if hosts.is_first():
    writers = [metric_writers.SummaryWriter(workdir), JsonLines(workdir)]
  return metric_writers.AsyncMultiWriter(writers)


def _due(step: int, every: int, end: int) -> bool:
  return step == end or (every > 0 and step % every == 0)


@contextlib.contextmanager
def _compiled_kept(config, workdir):
  """Keeps the programs that the body compiles for the run's next start."""
  usual = jax.config.values['jax_compilation_cache_dir']
  folder = config.compilation_cache_dir or usual or str(workdir / 'compiled')
  try:
    jax.config.update('jax_compilation_cache_dir', folder)
    # JAX reads the setting only once, unless the cache is reset.
    compilation_cache.reset_cache()
    yield
  finally:
    jax.config.update('jax_compilation_cache_dir', usual)
    compilation_cache.reset_cache()


def _mean_scalars(rows) -> dict[str, float]:
  mean = mean_row(rows)
  return {
    f'eval/{which}_{protocol}_{field}': value
    for which in ('input', 'restored')
    for protocol, score in getattr(mean, which).items()
    for field, value in score._asdict().items()
  }
