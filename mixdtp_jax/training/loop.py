"""The training loop."""

import contextlib
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp
from absl import logging
from clu import metric_writers
from jax.experimental.compilation_cache import compilation_cache

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.data import eval_batches, train_batches
from mixdtp_jax.data.datasets.registry import open_split
from mixdtp_jax.data.pairs import CroppedPairs, Pairs
from mixdtp_jax.evaluation import images, published, results
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.evaluation.score import evaluate, mean_row
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.models.factory import final_image, make_network
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.console import progress
from mixdtp_jax.runtime.mesh import make_mesh, place, replicated
from mixdtp_jax.runtime.tables import show
from mixdtp_jax.training import preemption
from mixdtp_jax.training.log import TrainingLog
from mixdtp_jax.training.run_lock import only_run
from mixdtp_jax.training.state import init_state
from mixdtp_jax.training.step import compile_ahead, make_train_step
from mixdtp_jax.weights.load import load_params


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: str
) -> TrainState:
  """Trains from the newest checkpoint in `workdir`, or from the start.

  Writes metrics for TensorBoard, checkpoints, and after the last update the
  scores of the test images into `workdir`, and prints the scores. All hosts
  call this in the same way; the first one writes. On SIGTERM it saves the
  state and returns.

  Args:
    config: configs/default.py with its options set.
    workdir: the run's folder, which all hosts share; created if missing.

  Returns:
    The state after config.num_train_steps updates, or after fewer on SIGTERM.

  Raises:
    ValueError: the configuration contradicts itself, the data, the weights to
      start from or the checkpoints in `workdir`; these are past the last
      update; or the hosts were started differently.
    RuntimeError: another run is active in `workdir`.
    OSError: a checkpoint could not be saved.
    FloatingPointError: loss or gradient is no longer finite.
    CollapseError: the SSIM of the restored images stays at 0.
  """
  config = _with_data_dir(config, workdir)
  mesh = make_mesh(space=config.mesh_space)
  step_fn = make_train_step(config, mesh)
  hosts.check_same('the configuration', config.to_json_best_effort())
  with (
    only_run(workdir),
    _compiled_kept(config, workdir),
    _closing(
      saving.make_manager(workdir, keep=config.keep_checkpoints)
    ) as manager,
    _closing(_make_writer(workdir)) as writer,
    preemption.watch() as watch,
  ):
    state = start_state(manager, config, replicated(mesh))
    start, end = int(state.step), config.num_train_steps
    batches, pairs = hosts.in_turn(
      lambda: _open_data(config, start_step=start, mesh=mesh)
    )
    step_fn = compile_ahead(step_fn, state, config, mesh)
    log = TrainingLog(config, writer, manager, start_step=start)
    score = functools.partial(
      evaluate_state,
      pairs=pairs,
      config=config,
      mesh=mesh,
      writer=writer,
      check=watch.check,
    )
    batches = log.waiting_for(batches)
    try:
      for step, batch in zip(range(start, end), batches, strict=False):
        state, scalars = step_fn(state, batch)  # state.step is step + 1 now
        log.add(step + 1, scalars)
        watch.check()
        if _due(step + 1, config.checkpoint_every_steps, end):
          log.check()
          logging.info('Saving checkpoint %d', step + 1)
          saving.save(manager, state, config)
        if _due(step + 1, config.eval_every_steps, end) and step + 1 < end:
          with log.paused():
            score(state)
      saving.wait(manager)
      score(state, folder=pathlib.Path(workdir, 'results'))
    except preemption.Preempted:
      log.check()
      _save_and_tell(manager, state, config)
  return state


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
  """Returns a writer of TensorBoard's files, which the first host writes."""
  writers = [metric_writers.SummaryWriter(workdir)] if hosts.is_first() else []
  return metric_writers.AsyncMultiWriter(writers)


def _open_data(config, *, start_step, mesh):
  """Opens training batches and test images, so that bad data fails now."""
  batches = train_batches.train_batches(
    config, start_step=start_step, mesh=mesh
  )
  data = config.data
  pairs = open_split(
    data.name, source=data.source, data_dir=data.data_dir, split='test'
  )
  return batches, CroppedPairs(pairs, config.eval_crop_multiple)


def _save_and_tell(manager, state, config):
  """Saves the state after SIGTERM, and logs how to continue."""
  saving.save(manager, state, config)
  saving.wait(manager)
  logging.info(
    'Stopped by SIGTERM after update %d of %d; the state is in %s. Start the '
    'same command again to continue.',
    int(state.step),
    config.num_train_steps,
    manager.directory / str(int(state.step)),
  )


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


def _with_data_dir(config, workdir):
  """Returns a copy whose data_dir is set."""
  config = config.copy_and_resolve_references()  # ConfigDict(...) shares parts
  if not config.data.data_dir:
    config.data.data_dir = str(pathlib.Path(workdir).absolute() / 'data')
  return config


def start_state(
  manager: ocp.CheckpointManager,
  config: ml_collections.ConfigDict,
  sharding: jax.sharding.Sharding,
) -> TrainState:
  """Returns the newest saved state, or a fresh one at step 0 if there is none.

  The fresh state has the weights of config.init_from, or if that is '', weights
  drawn from config.seed. Its optimizer is fresh in both cases.

  Args:
    manager: the run's checkpoints.
    config: the run's configuration.
    sharding: the layout of each array of the state.

  Raises:
    FileNotFoundError, ValueError: the checkpoint or the weights are of another
      network, there are no weights, or the checkpoint is past the last update.
  """
  cfg = make_model_config(config.model)
  optimizer = make_optimizer(config)
  init = functools.partial(
    init_state,
    config.seed,
    make_network(cfg),
    optimizer,
    ema=config.ema_decay > 0,
  )
  state = restoring.restore_or_init(manager, config, init, sharding)
  if config.init_from and manager.latest_step() is None:
    # The optimizer's fresh state is zeros, whatever the weights.
    params = place(load_params(config.init_from, cfg), sharding)
    state = state.replace(params=params)
    if state.ema_params is not None:
      state = state.replace(ema_params=jax.tree.map(jnp.copy, params))
  if state.step > config.num_train_steps:
    raise ValueError(
      f'{manager.directory.parent} has made {state.step} updates already, more '
      f'than num_train_steps = {config.num_train_steps}: raise it, or use '
      'another workdir'
    )
  return state


def evaluate_state(
  state: TrainState,
  pairs: Pairs,
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  writer: metric_writers.MetricWriter,
  check: Callable[[], None],
  folder: pathlib.Path | None = None,
) -> None:
  """Scores a state on test images, and writes the means and some images.

  Args:
    state: the state; its averaged parameters are scored if it has them.
    pairs: the test images.
    config: the run's configuration; while training, it limits the images.
    mesh: the devices that share the work.
    writer: gets PSNR and SSIM by protocol, and side-by-side images.
    check: called between batches; its error ends the evaluation.
    folder: at the end of a run, the folder for the scores of all test images
      (CSV and JSON) and restored images; the means are printed too. None while
      training.
  """
  step, cfg = int(state.step), make_model_config(config.model)
  restore = whole_image.make_restore(
    final_image(cfg),
    state.eval_params,
    multiple=make_network(cfg).multiple,
    mesh=mesh,
  )
  limit = config.eval_images if folder is None else 0
  batches = eval_batches.eval_batches(
    pairs, batch_size=config.eval_batch_size, limit=limit
  )
  total = min(limit or len(pairs), len(pairs))
  first = images.FirstImages(pairs, folder if hosts.is_first() else None)
  tell = progress('Evaluating', total)

  def after_batch(done: int) -> None:
    tell(done)
    check()

  rows = evaluate(
    restore,
    batches,
    list(PROTOCOLS),
    save=first.add,
    progress=after_batch,
  )
  writer.write_scalars(step, _mean_scalars(rows))
  writer.write_images(step, {'eval/restored': first.image[None]})
  score = mean_row(rows).restored['rgb']
  logging.info(
    'Evaluated update %d on %d images: PSNR %.2f dB, SSIM %.4f (rgb)',
    *(step, len(rows), *score),
  )
  if folder is not None and hosts.is_first():
    _conclude(folder, config, step, pairs.name, rows, first.image)


def _mean_scalars(rows) -> dict[str, float]:
  mean = mean_row(rows)
  return {
    f'eval/{which}_{protocol}_{field}': value
    for which in ('input', 'restored')
    for protocol, score in getattr(mean, which).items()
    for field, value in score._asdict().items()
  }


def _conclude(folder, config, step, dataset, rows, image) -> None:
  """Writes a run's results, and prints them beside published ones."""
  scores = mean_row(rows).restored
  name = published.run_name(config.eval_crop_multiple)
  context = {'step': step, 'config': config.to_dict()}
  ranks = published.rank(dataset, scores, name)
  results.write_results(folder, rows, image, context, ranks)
  show(results.score_table(rows), *published.tables(ranks))
