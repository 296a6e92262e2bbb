"""Whole runs, in this process."""

import csv
import json
import math
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.restoration.sheets import side_by_side
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.training.loop import train_and_evaluate
from mixdtp_jax.training.start import start_state
from mixdtp_jax.weights.folder import save_weights
from mixdtp_jax.weights.load import load_weights
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures('quick_compiler')


@pytest.fixture(scope='module')
def events(tiny_run):
  """Returns {tag: {step: value}} as TensorBoard sees it."""
  found = {}
  for path in tiny_run.workdir.glob('events.out.tfevents*'):
    for record in tf.data.TFRecordDataset(str(path)):
      event = tf.compat.v1.Event.FromString(record.numpy())
      for value in event.summary.value:
        tensor = tf.make_ndarray(value.tensor)
        found.setdefault(value.tag, {})[event.step] = tensor
  return found


def test_makes_every_update(tiny_run):
  config = tiny_run.config
  assert tiny_run.state.step == config.num_train_steps == 20
  # The run itself wants no more batches than updates, and prefetches none.
  assert len(tiny_run.trained) in (20, 21)
  crop = config.data.crop
  assert set(tiny_run.trained) == {(config.batch_size, crop, crop, 3)}
  assert tiny_run.seeds
  assert set(tiny_run.seeds) == {config.seed}


def test_the_loss_falls(events):
  loss = events['loss']
  assert loss[20] < loss[1] - 0.05
  assert all(np.isfinite(value) for value in loss.values())


def test_logs_every_few_updates(tiny_run, events):
  assert tiny_run.config.log_every_steps == 4
  for tag in ('loss', 'psnr', 'loss_final', 'loss_coarse', 'grad_norm'):
    assert list(events[tag]) == [1, 4, 8, 12, 16, 20]
  for tag in ('images_per_second', 'data_wait_ms', 'minutes_left'):
    assert list(events[tag]) == [4, 8, 12, 16, 20]
  assert all(wait > 0 for wait in events['data_wait_ms'].values())
  rate = events['learning_rate']
  assert rate[1] == 0
  assert rate[20] == pytest.approx(tiny_run.config.schedule.final_rate)


def test_traces_a_few_updates(tiny_run):
  (trace,) = tiny_run.workdir.glob('plugins/profile/*/*.xplane.pb')
  planes = jax.profiler.ProfileData.from_file(str(trace)).planes
  events = [e for plane in planes for line in plane.lines for e in line.events]
  programs = {dict(event.stats).get('hlo_module') for event in events}
  assert 'jit_train_step' in programs


def test_evaluates_every_few_updates(tiny_run, events):
  assert tiny_run.config.eval_every_steps == 10
  for protocol in PROTOCOLS:
    for which in ('input', 'restored'):
      for score in ('psnr', 'ssim'):
        tag = f'eval/{which}_{protocol}_{score}'
        assert list(events[tag]) == [10, 20]
        assert all(np.isfinite(value) for value in events[tag].values())
  before = events['eval/input_y_psnr']
  assert before[10] != before[20]  # of two images, then of all three
  (tag,) = [tag for tag in events if tag.startswith('eval/restored/')] or [
    'eval/restored'
  ]
  assert list(events[tag]) == [10, 20]
  image = tf.io.decode_png(events[tag][20][2]).numpy()
  comparison = tiny_run.workdir / 'results' / 'comparison.png'
  np.testing.assert_array_equal(image, np.asarray(Image.open(comparison)))


def test_evaluates_as_many_images_as_it_should(tiny_run):
  config = tiny_run.config
  assert config.eval_images < tiny.TEST_IMAGES
  assert config.eval_crop_multiple == 16
  assert config.eval_batch_size == 3
  # In the middle as many as configured, at the end all.
  assert tiny_run.shown == [
    ((2, *tiny.CROPPED_SIZE, 3), ('0', '1')),
    ((3, *tiny.CROPPED_SIZE, 3), ('0', '1', '2')),
  ]


def test_scores_each_rainy_image_once(tiny_run):
  assert len(tiny_run.scored) == (2 + 3) + 3


def test_writes_the_results(tiny_run, events):
  folder = tiny_run.workdir / 'results'
  found = {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()}
  assert found == {
    'results.csv',
    'results.json',
    'comparison.png',
    'images/0.png',
    'images/1.png',
    'images/2.png',
  }
  with open(folder / 'results.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['name'] for row in rows] == ['0', '1', '2']
  results = json.loads((folder / 'results.json').read_text())
  assert results['context']['step'] == 20
  assert results['context']['config']['seed'] == tiny_run.config.seed
  mean = results['mean']['restored']['y']['psnr']
  logged = events['eval/restored_y_psnr'][20]
  np.testing.assert_allclose(mean, logged, rtol=1e-6)
  table = np.mean([float(row['y_restored_psnr']) for row in rows])
  np.testing.assert_allclose(mean, table, rtol=1e-9)
  image = Image.open(folder / 'images' / '0.png')
  assert image.size == tiny.CROPPED_SIZE[::-1]


def test_compares_images_that_are_cut_alike(tiny_run):
  source = pathlib.Path(tiny_run.config.data.source, 'test')
  results = tiny_run.workdir / 'results'
  rainy, restored, clean = (
    np.asarray(Image.open(path))[: tiny.CROPPED_SIZE[0], : tiny.CROPPED_SIZE[1]]
    for path in (
      source / 'rainy' / '0.png',
      results / 'images' / '0.png',
      source / 'clean' / '0.png',
    )
  )
  panel = side_by_side(
    [('0: rainy', rainy), ('restored', restored), ('clean', clean)]
  )
  comparison = np.asarray(Image.open(results / 'comparison.png'))
  np.testing.assert_array_equal(comparison[: len(panel)], panel)


def test_keeps_the_newest_checkpoints(tiny_run):
  config = tiny_run.config
  assert (config.checkpoint_every_steps, config.keep_checkpoints) == (4, 2)
  folder = tiny_run.workdir / 'checkpoints'
  assert {path.name for path in folder.iterdir()} == {'16', '20'}


def test_the_state_that_is_returned_is_the_one_that_was_saved(tiny_run):
  cfg, params = load_weights(tiny_run.workdir)
  assert cfg == make_model_config(tiny_run.config.model)
  jax.tree.map(np.testing.assert_array_equal, params, tiny_run.state.params)


def test_prepares_the_data_in_the_workdir(tiny_run):
  assert (tiny_run.workdir / 'data' / 'pairs').is_dir()
  assert tiny_run.config.data.data_dir == ''  # the caller's is as it was


def _poisoned(params, value=math.nan):
  """Returns parameters with one number that spoils the loss."""
  params = jax.tree.map(jnp.asarray, params)
  bias = params['progressive']['step']['conv_out']['bias']
  params['progressive']['step']['conv_out']['bias'] = bias.at[0].set(value)
  return params


def _poisoned_run(tiny_run, workdir):
  """Makes a run whose checkpoint of update 4 holds too large a number."""
  config = tiny.get_prenet_config()
  config.data.source = str(tiny_run.config.data.source)
  config.data.data_dir = str(tiny_run.workdir / 'data')
  with saving.Manager(workdir) as manager:
    params = _poisoned(tiny_run.state.params, 1e38)
    state = TrainState(jnp.int32(4), params, tiny_run.state.opt_state)
    saving.save(manager, state, make_recipe(config))
  return config


def test_stops_when_the_loss_is_not_finite(tiny_run, tmp_path):
  config = _poisoned_run(tiny_run, tmp_path)
  with pytest.raises(
    FloatingPointError, match='update 5: .*loss = nan'
  ) as error:
    train_and_evaluate(make_recipe(config), str(tmp_path))
  assert str(tmp_path / 'checkpoints' / '4') in str(error.value)
  # The states after it are neither saved nor evaluated.
  assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['4']
  assert not (tmp_path / 'results').exists()


def test_an_unknown_model_field_is_refused_before_anything_is_written(tmp_path):
  config = tiny.get_prenet_config()
  with config.unlocked():
    config.model.nonsense = 1
  with pytest.raises(ValueError, match='unknown option model.nonsense'):
    train_and_evaluate(make_recipe(config), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_a_run_past_its_end_is_refused(tiny_run):
  config = tiny.get_prenet_config()
  config.data.source = tiny_run.config.data.source
  config.num_train_steps = 10
  with pytest.raises(ValueError, match='made 20 updates already, more than'):
    train_and_evaluate(make_recipe(config), str(tiny_run.workdir))


def test_places_the_results_among_published_ones(
  tiny_run, tiny_rain100l, tmp_path, capsys
):
  config = tiny.get_prenet_config()
  config.data.name, config.data.source = 'rain100l', str(tiny_rain100l)
  with saving.Manager(tmp_path) as manager:
    saving.save(manager, tiny_run.state, make_recipe(config))
  train_and_evaluate(make_recipe(config), str(tmp_path))  # no updates are left

  printed = capsys.readouterr().out
  results = json.loads((tmp_path / 'results' / 'results.json').read_text())
  assert set(results['published']['ranked']) == {'rgb', 'prenet'}
  assert re.search(r'^this run, .* of 16 +2 ', printed, re.MULTILINE)


def test_without_test_images_it_stops_before_training(
  tiny_run, tiny_pairs, tmp_path
):
  source, workdir = tmp_path / 'source', tmp_path / 'run'
  for ours, theirs in (('input', 'rainy'), ('target', 'clean')):
    shutil.copytree(tiny_pairs / 'train' / theirs, source / 'train' / ours)
  config = tiny.get_prenet_config()
  config.data.name, config.data.source = 'rain200l', str(source)
  config.num_train_steps = 24
  registry.prepare(
    'rain200l',
    source=str(source),
    data_dir=str(workdir / 'data'),
    partial=True,
  )
  with saving.Manager(workdir) as manager:
    saving.save(manager, tiny_run.state, make_recipe(config))
  with pytest.raises(ValueError, match="rain200l has no split 'test'"):
    train_and_evaluate(make_recipe(config), str(workdir))
  with saving.Manager(workdir) as manager:
    assert manager.latest_step() == 20


def test_a_test_image_too_small_to_cut_stops_a_run_at_once(tiny_run, tmp_path):
  config = tiny.get_prenet_config()
  config.data.source = tiny_run.config.data.source
  config.data.data_dir = str(tiny_run.workdir / 'data')
  config.eval_crop_multiple = 32  # the images have 24 rows
  with pytest.raises(ValueError, match='^0 has 40x24 pixels, too few to cut'):
    train_and_evaluate(make_recipe(config), str(tmp_path))
  assert not list((tmp_path / 'checkpoints').iterdir())


def _start(workdir, **changes):
  config = tiny.get_prenet_config()
  config.update_from_flattened_dict(changes)
  sharding = replicated(make_mesh())
  with saving.Manager(workdir) as manager:
    state = start_state(manager, make_recipe(config), sharding)
  assert {x.sharding for x in jax.tree.leaves(state)} == {sharding}
  return state


@pytest.mark.slow
def test_starts_from_given_weights_with_a_fresh_optimizer(tiny_run, tmp_path):
  state = _start(tmp_path, init_from=str(tiny_run.workdir))
  assert state.step == 0
  trained = tiny_run.state
  jax.tree.map(np.testing.assert_array_equal, state.params, trained.params)
  moments = jax.tree.leaves(state.opt_state)
  assert len(moments) == len(jax.tree.leaves(trained.opt_state))
  assert not any(x.any() for x in moments)


def test_weights_of_another_network_are_no_start(tiny_run, tmp_path):
  with pytest.raises(ValueError, match='recurrent_width: there 4, here 6'):
    _start(
      tmp_path,
      **{'init_from': str(tiny_run.workdir), 'model.recurrent_width': 6},
    )


def test_a_run_trains_the_weights_that_it_is_given(tiny_run, tmp_path):
  config = tiny.get_prenet_config()
  config.data.source = tiny_run.config.data.source
  config.data.data_dir = str(tiny_run.workdir / 'data')
  config.init_from = str(tmp_path / 'poisoned')
  cfg = make_model_config(config.model)
  # Finite, but not after it is squared.
  save_weights(config.init_from, cfg, _poisoned(tiny_run.state.params, 1e38))
  with pytest.raises(FloatingPointError, match='update 1: .*loss = nan'):
    train_and_evaluate(make_recipe(config), str(tmp_path / 'run'))


def test_a_checkpoint_comes_before_given_weights(tiny_run):
  state = _start(tiny_run.workdir, init_from='gone')
  jax.tree.map(np.testing.assert_array_equal, state, tiny_run.state)
