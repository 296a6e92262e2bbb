"""What is checked, and cleared up, before the first update."""

import contextlib
import json
import pathlib
import re
import shutil
import time

import jax
import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.cli import main
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.training import loop, start
from mixdtp_jax.training.loop import train_and_evaluate
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.run import load_run_config
from tests.helpers.child_runs import get_config

pytestmark = pytest.mark.usefixtures('quick_compiler')


def _recipe(source, data_dir='', **changes):
  changes = {
    'num_train_steps': 6,
    'checkpoint_every_steps': 0,
    'batch_size': 8,
  } | changes
  return make_recipe(get_config(source, data_dir, **changes))


@pytest.fixture
def draws_nothing(monkeypatch):
  """Fails if weights are drawn."""

  def fail(*args, **kwargs):
    raise AssertionError('weights were drawn')

  monkeypatch.setattr(start, 'init_state', fail)


def test_a_home_folder_is_meant_by_a_tilde(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  config, workdir = start.locate(
    _recipe('~/pairs', init_from='~/w', compilation_cache_dir='~/c'), '~/run'
  )
  assert workdir == tmp_path / 'run'
  assert config.data.source == str(tmp_path / 'pairs')
  assert config.data.data_dir == str(tmp_path / 'run' / 'data')
  assert config.init_from == str(tmp_path / 'w')
  assert config.compilation_cache_dir == str(tmp_path / 'c')


def test_data_are_recorded_in_full(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  data = start.locate(_recipe('pairs', 'prepared'), 'run')[0].data
  assert (data.source, data.data_dir) == (
    str(tmp_path / 'pairs'),
    str(tmp_path / 'prepared'),
  )
  assert start.locate(_recipe(''), 'run')[0].data.source == ''


@pytest.mark.parametrize(
  ('workdir', 'changes'),
  [
    ('gs://bucket/run', {}),
    ('run', {'data.source': 's3://bucket/pairs'}),
    ('run', {'data.data_dir': 'gs://bucket/data'}),
    ('run', {'init_from': 'https://host/weights.pth'}),
  ],
)
def test_a_url_is_refused_at_once(tmp_path, monkeypatch, workdir, changes):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match='is a URL, .* mount the bucket'):
    train_and_evaluate(_recipe('pairs', **changes), workdir)
  assert not list(tmp_path.iterdir())


def test_weights_at_a_url_are_refused():
  with pytest.raises(ValueError, match='gs://bucket/w is a URL'):
    load_weights('gs://bucket/w')


def test_a_wrong_source_is_told_before_weights_are_drawn(
  tmp_path, draws_nothing
):
  source = tmp_path / 'wrong'
  source.mkdir()
  with pytest.raises(FileNotFoundError, match=str(source)):
    train_and_evaluate(_recipe(source), str(tmp_path / 'new' / 'run'))
  assert [path.name for path in tmp_path.iterdir()] == ['wrong']


def test_a_test_image_smaller_than_the_window_of_ssim(
  tiny_pairs, tmp_path, draws_nothing
):
  source = shutil.copytree(tiny_pairs, tmp_path / 'pairs')
  for side in ('rainy', 'clean'):
    small = Image.fromarray(np.zeros((10, 40, 3), np.uint8))
    small.save(source / 'test' / side / '1.png')
  config = _recipe(source, eval_crop_multiple=1)
  with pytest.raises(ValueError, match='^1 has 40x10 pixel'):
    train_and_evaluate(config, str(tmp_path / 'run'))


def test_too_little_room_for_a_checkpoint(
  tiny_pairs, tmp_path, monkeypatch, draws_nothing
):
  usage = shutil.disk_usage(tmp_path)._replace(free=1000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(OSError, match='0.0 MB free, and a checkpoint needs'):
    train_and_evaluate(_recipe(tiny_pairs), str(tmp_path / 'run'))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['results', 'results/images'])
def test_results_that_cannot_be_written_are_told_before(
  tiny_pairs, tmp_path, draws_nothing, name
):
  path = tmp_path / 'run' / name
  path.parent.mkdir(parents=True)
  path.touch()
  with pytest.raises(PermissionError, match=f'{path}: nothing can be written'):
    train_and_evaluate(_recipe(tiny_pairs), str(tmp_path / 'run'))
  assert not (tmp_path / 'run' / 'data').exists()


def test_a_workdir_that_cannot_be_written_is_told_first(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match='file'):
    train_and_evaluate(_recipe('no pairs'), str(tmp_path / 'file' / 'run'))


def test_left_overs_of_killed_runs_are_removed(tmp_path):
  left = [
    '.writing-a/best.json',
    'results/.writing-b/results.csv',
    'results/images/.writing-c/0.png',
  ]
  # The last ones are a user's, and belong to another process that writes.
  kept = [
    'results/results.csv',
    'notes/.writing-d',
    'data/mine/scans/x',
    'data/pairs/.writing-e/1.0.0/x',
  ]
  for name in left + kept:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('')
  start.remove_leftovers(tmp_path)
  found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*')}
  assert found >= set(kept)
  assert not any(pathlib.PurePath(name).parent.name in found for name in left)
  assert not list((tmp_path / 'results').rglob('.writing*'))


def test_the_command_checks_and_stops(
  tiny_pairs, tmp_path, capsys, draws_nothing
):
  recipe = pathlib.Path(__file__).parents[1] / 'helpers' / 'tiny.py'
  workdir = tmp_path / 'run'
  words = ['train', f'--config={recipe}', f'--workdir={workdir}', '--check']
  source = f'--config.data.source={tiny_pairs}'
  assert main.run_command([*words, source]) == 0
  (line,) = capsys.readouterr().out.splitlines()
  assert re.fullmatch(
    r'Checked: the run can start: 4 images to train on, 3 to test, 20 updates '
    rf'to make, [\d,]+\.\d GB free in {workdir}\.',
    line,
  )
  assert (workdir / 'data' / 'pairs').is_dir()
  assert not list((workdir / 'checkpoints').iterdir())
  assert not list(workdir.glob('events*'))
  # Weights to start from are read, too.
  wrong = '--config.init_from=/nowhere'
  assert main.run_command([*words, source, wrong]) == 1
  assert '/nowhere: no weights there' in capsys.readouterr().err


@pytest.fixture(scope='module')
def run_with_best(tiny_pairs, quick_compiler, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('best') / 'run'
  source = shutil.copytree(tiny_pairs, workdir.parent / 'pairs')
  shutil.copytree(source / 'test', source / 'val')
  config = _recipe(
    'pairs', keep_best='val', keep_checkpoints=1, eval_every_steps=2
  )
  with contextlib.chdir(workdir.parent):
    train_and_evaluate(config, 'run')
  return workdir


@pytest.mark.slow
def test_the_best_by_a_validation_split_is_kept(
  run_with_best, tmp_path, monkeypatch
):
  best = saving.read_best(run_with_best)
  assert best['split'] == 'val'
  assert best['images'] == 2
  results = json.loads((run_with_best / 'results' / 'results.json').read_text())
  assert results['context']['step'] == 6
  assert results['context']['best'] == best
  folder = run_with_best / 'checkpoints'
  assert {p.name for p in folder.iterdir()} == {str(best['update']), '6'}
  _, params = load_weights(run_with_best, update='best')
  _, same = load_weights(run_with_best, update=best['update'])
  jax.tree.map(np.testing.assert_array_equal, params, same)
  with pytest.raises(ValueError, match='no checkpoint of update 5, only of'):
    load_weights(run_with_best, update=5)
  # The score is that of the weights.
  out = tmp_path / 'out'
  monkeypatch.setenv('HOME', str(run_with_best.parent))
  step = f'--step={best["update"]}'  # which is the best by any name
  words = ['eval', '--weights=~/run', step, '--split=val']
  assert main.run_command([*words, f'--out={out}', '--crop_multiple=16']) == 0
  scored = json.loads((out / 'results.json').read_text())
  assert scored['context']['best'] == best
  shown = [image['restored']['y']['psnr'] for image in scored['images'][:2]]
  np.testing.assert_allclose(np.mean(shown), best['y_psnr'], rtol=1e-5)


@pytest.mark.slow
def test_a_copied_run_uses_the_data_beside_it(run_with_best, tmp_path, capsys):
  copy = shutil.copytree(run_with_best, tmp_path / 'copy')
  shutil.move(run_with_best.parent, tmp_path / 'gone')  # on another machine
  words = ['eval', f'--weights={copy}', '--protocols=rgb']
  try:
    assert main.run_command(words) == 0
    shutil.rmtree(copy / 'data')
    assert main.run_command(words) == 1
    assert not run_with_best.parent.exists()
    assert load_run_config(copy)['data']['data_dir'] == str(copy / 'data')
  finally:
    shutil.move(tmp_path / 'gone', run_with_best.parent)
  assert 'has no prepared pairs: mixdtp prepare' in capsys.readouterr().err
  assert load_run_config(copy)['data']['data_dir'] == str(
    run_with_best / 'data'
  )


def _sleeps():
  loop.compile_ahead = lambda *args: time.sleep(100)


@pytest.mark.slow
def test_sigterm_acts_while_compiling(children, tiny_pairs, tmp_path):
  output = tmp_path / 'output.txt'
  config = get_config(tiny_pairs, tmp_path / 'data')
  workdir = tmp_path / 'run'
  process = children.start(config, workdir, output=output, before=_sleeps)
  deadline = time.monotonic() + 100
  while not output.exists() or 'Drawing' not in output.read_text():
    assert time.monotonic() < deadline
    assert process.is_alive(), output.read_text()
    time.sleep(0.05)
  process.terminate()
  process.join(20)
  assert process.exitcode == 0
  assert 'before the first update: nothing is lost' in output.read_text()
  assert not list((workdir / 'checkpoints').iterdir())
