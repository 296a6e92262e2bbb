"""The log of a run, and the guards that end one."""

import math
import time

import jax.numpy as jnp
import ml_collections
import pytest
from clu import metric_writers

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.configs.default import get_config
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.training.guards import CollapseError
from mixdtp_jax.training.log import TrainingLog


class _Recorder(metric_writers.MetricWriter):
  """Keeps the scalars; a log writes nothing else."""

  def __init__(self):
    self.scalars = {}

  def write_scalars(self, step, scalars):
    assert step not in self.scalars
    self.scalars[step] = dict(scalars)

  def _unexpected(self, *args):
    raise AssertionError(f'unexpected: {args}')

  write_summaries = write_images = write_videos = write_audios = _unexpected
  write_texts = write_histograms = write_hparams = _unexpected

  def flush(self):
    pass

  def close(self):
    pass


@pytest.fixture
def manager(tmp_path):
  with saving.Manager(tmp_path) as manager:
    yield manager


def _config(**changes) -> ml_collections.ConfigDict:
  config = get_config()
  config.update({'log_every_steps': 3, 'num_train_steps': 8} | changes)
  return config


def _scalars(step, **changes):
  return {
    k: jnp.float32(v)
    for k, v in (
      {'loss': step, 'loss_final': -0.5, 'psnr': 1} | changes
    ).items()
  }


def _run(manager, config, steps):
  writer = _Recorder()
  log = TrainingLog(make_recipe(config), writer, manager)
  for step in steps:
    log.add(step, _scalars(step))
  log.check()
  return writer.scalars


def test_writes_the_first_every_nth_and_the_last(manager):
  written = _run(manager, _config(), range(1, 9))
  assert list(written) == [1, 3, 6, 8]
  assert all(scalars['loss'] == step for step, scalars in written.items())


def test_log_every_steps_counts_updates_also_after_a_restart(manager):
  config = _config(log_every_steps=4, num_train_steps=100)
  assert list(_run(manager, config, range(6, 15))) == [6, 8, 12]


def test_an_update_is_reported_when_the_next_one_is_under_way(manager):
  writer = _Recorder()
  log = TrainingLog(make_recipe(_config()), writer, manager)
  log.add(1, _scalars(1))
  assert not writer.scalars
  log.add(2, _scalars(2))
  assert list(writer.scalars) == [1]
  log.check()
  log.check()  # nothing is reported twice
  assert list(writer.scalars) == [1]


def test_progress_is_the_speed_since_the_last_line(manager):
  config = _config(log_every_steps=1, num_train_steps=100, batch_size=4)
  writer = _Recorder()
  log = TrainingLog(make_recipe(config), writer, manager)
  log.add(1, _scalars(1))
  log.check()
  assert 'images_per_second' not in writer.scalars[1]  # it was compiled
  start = time.monotonic()
  time.sleep(0.2)
  with log.paused():
    time.sleep(0.5)
  log.add(2, _scalars(2))
  log.check()
  seconds = time.monotonic() - start - 0.5
  progress = writer.scalars[2]
  assert 4 / seconds == pytest.approx(progress['images_per_second'], rel=0.2)
  assert progress['images_per_second'] <= 4 / 0.2
  left = 98 * 4 / progress['images_per_second'] / 60
  assert progress['minutes_left'] == pytest.approx(left)


def test_data_wait_is_the_mean_since_the_last_line(manager):
  waits = []

  def slow_batches():
    for step, seconds in enumerate((0.2, 0, 0.12, 0.06, 0.03, 0, 0.1, 0.1), 1):
      start = time.monotonic()
      time.sleep(seconds)
      waits.append(1e3 * (time.monotonic() - start))
      yield step

  config, writer = _config(log_every_steps=3, num_train_steps=8), _Recorder()
  log = TrainingLog(make_recipe(config), writer, manager)
  for step in log.waiting_for(slow_batches()):
    time.sleep(0.05)  # an update is no waiting, nor is an evaluation
    log.add(step, _scalars(step))
    with log.paused():
      time.sleep(0.05)
  found = {k: v.get('data_wait_ms') for k, v in writer.scalars.items()}
  assert found.pop(1) is None  # the pipeline was starting
  expected = {3: waits[1:3], 6: waits[3:6], 8: waits[6:]}
  means = {step: sum(of) / len(of) for step, of in expected.items()}
  assert found == pytest.approx(means, abs=10)


@pytest.mark.parametrize('name', ['loss', 'grad_norm'])
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_value_that_is_not_finite_stops(manager, name, value):
  state = TrainState(jnp.int32(5), {'kernel': jnp.ones(3)}, ())
  writer = _Recorder()
  log = TrainingLog(make_recipe(_config()), writer, manager)
  # Saving may still be under way when the run stops.
  params = {'kernel': state.params}
  saving.save(
    manager, TrainState(state.step, params, params), make_recipe(_config())
  )
  log.add(6, _scalars(6, **{name: value}))
  with pytest.raises(FloatingPointError) as error:
    log.add(7, _scalars(7))
  message = str(error.value)
  assert message.startswith(f'update 6: {name} = {value};')
  assert str(manager.directory / '5') in message
  assert (manager.directory / '5').is_dir()
  assert 'psnr' not in message
  assert not writer.scalars


def test_without_a_checkpoint_it_says_so(manager):
  log = TrainingLog(make_recipe(_config()), _Recorder(), manager)
  log.add(1, _scalars(1, loss=math.nan))
  with pytest.raises(FloatingPointError, match='no checkpoint was saved'):
    log.check()


def _collapse(manager, config, ssims):
  """Logs updates 1, 2, ... whose final images have these SSIMs."""
  log = TrainingLog(make_recipe(config), _Recorder(), manager)
  for step, ssim in enumerate(ssims, 1):
    log.add(step, _scalars(step, loss_final=-ssim))
  log.check()


def _save(manager, *steps):
  params = {'kernel': jnp.ones(3)}
  for step in steps:
    state = TrainState(jnp.int32(step), params, params)
    saving.save(manager, state, make_recipe(_config()))


def test_an_ssim_that_stays_at_zero_stops(manager):
  _save(manager, 1, 2, 3)
  config = _config(collapse_patience=4)
  # Update 4 finds SSIM 0: state 3 has collapsed, state 2 has not.
  ssims = [0.5, 0.4, 0.3, 1e-5, -1e-5, 9e-4, 0.0]
  with pytest.raises(
    CollapseError, match='^update 7: .* since update 4'
  ) as error:
    _collapse(manager, config, ssims)
  message = str(error.value)
  assert f'last good checkpoint is {manager.directory / "2"}.' in message
  assert 'ssim_l1' in message
  _collapse(manager, config, ssims[:-1])  # not yet


@pytest.mark.parametrize(
  ('changes', 'ssims'),
  [
    ({'collapse_patience': 0}, [0.0] * 9),
    ({'collapse_patience': 3}, [0.0, 0.0, 0.1] * 3),
    ({'collapse_patience': 3}, [2e-3] * 9),
    ({'collapse_patience': 3, 'loss': {'final': 'l1'}}, [0.0] * 9),
  ],
  ids=str,
)
def test_other_runs_go_on(manager, changes, ssims):
  _collapse(manager, _config(**changes), ssims)


def test_speed_counts_the_images_of_each_stage(manager):
  config = _config(log_every_steps=4, batch_size=8, growth=((2, 96, 4),))
  writer = _Recorder()
  log = TrainingLog(make_recipe(config), writer, manager)
  log.add(1, _scalars(1))
  log.check()
  start = time.monotonic()
  time.sleep(0.2)
  log.add(4, _scalars(4))
  log.check()
  seconds = time.monotonic() - start
  speed = writer.scalars[4]['images_per_second']
  assert speed == pytest.approx((8 + 4 + 4) / seconds, rel=0.2)
