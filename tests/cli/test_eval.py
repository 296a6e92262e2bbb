"""eval.py as a user runs it: in a process of its own, on files."""

import copy
import csv
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.cli import main
from mixdtp_jax.evaluation import network
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score
from mixdtp_jax.evaluation.published import rank, tables
from mixdtp_jax.models.config import as_mapping
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.restoration.whole_image import make_restore
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.pth import write_pth
from mixdtp_jax.weights.state_dict import to_torch

pytestmark = pytest.mark.usefixtures('quick_compiler')

_REPOSITORY = pathlib.Path(__file__).parents[2]
_NAMES = ('first', 'second')
_SIZE = (19, 27)  # no multiples of 8


def _run(*arguments, environment=None):
  command = [sys.executable, str(_REPOSITORY / 'eval.py'), *arguments]
  return subprocess.run(
    command,
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def _rows(path):
  with open(path, newline='') as file:
    return {row['name']: row for row in csv.DictReader(file)}


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  """A folder of two small pairs."""
  folder = tmp_path_factory.mktemp('pairs')
  rng = np.random.default_rng(0)
  for name in _NAMES:
    clean = rng.integers(0, 200, (*_SIZE, 3), dtype=np.uint8)
    for kind, image in (('clean', clean), ('rainy', clean + np.uint8(30))):
      (folder / kind).mkdir(exist_ok=True)
      Image.fromarray(image).save(folder / kind / f'{name}.png')
  return folder


@pytest.mark.slow
@pytest.mark.torch
def test_scores_and_saves_a_folder_of_pairs(
  tiny_run, environment, pairs, tmp_path
):
  cfg, params = load_weights(tiny_run.workdir)
  write_pth(to_torch(params, cfg), tmp_path / 'small.pth')
  out = tmp_path / 'out'
  result = _run(
    f'--weights={tmp_path / "small.pth"}',
    f'--steps={cfg.steps}',
    f'--folder={pairs}',
    f'--out={out}',
    environment=environment,
  )
  assert result.returncode == 0, result.stderr

  rainy = np.asarray(Image.open(pairs / 'rainy' / 'second.png'))
  multiple = cfg.multiple
  restore = make_restore(final_image(cfg), params, multiple=multiple)
  want = restore(np.float32(rainy)[None] / 255)[0]
  got = np.asarray(Image.open(out / 'images' / 'second.png'))
  assert got.shape == (*_SIZE, 3)
  np.testing.assert_allclose(got, 255 * want, atol=0.51)

  assert set(_rows(out / 'results.csv')) == set(_NAMES)
  content = json.loads((out / 'results.json').read_text())
  assert set(content['mean']['restored']) == set(PROTOCOLS)
  assert content['context']['model'] == as_mapping(cfg)
  assert content['published'] == {}  # a folder has no published results
  mean = content['mean']['restored']['rgb']['psnr']
  assert f'{mean:.4f}' in result.stdout
  for name in ('results.csv', 'results.json', 'comparison.png', 'images'):
    assert (out / name).exists()
    assert str(out / name) in result.stdout.splitlines()


def test_scores_a_run_on_its_own_test_split(tiny_run, tmp_path):
  multiple = tiny_run.config.eval_crop_multiple
  words = [
    f'--weights={tiny_run.workdir}',
    f'--crop_multiple={multiple}',
    f'--out={tmp_path}',
    '--protocols=y,rgb',
  ]
  assert main.run_command(['eval', *words]) == 0
  rows = _rows(tmp_path / 'results.csv')
  # All images, where training looked at the first two; their scores agree.
  assert set(rows) == {'0', '1', '2'}
  for name, row in _rows(tiny_run.workdir / 'results' / 'results.csv').items():
    for column, value in rows[name].items():
      if column != 'name':
        assert float(value) == pytest.approx(float(row[column]), rel=1e-5)
    assert 'y_restored_psnr' in rows[name]
    assert 'prenet_restored_psnr' not in rows[name]
  content = json.loads((tmp_path / 'results.json').read_text())
  assert content['context']['crop_multiple'] == multiple


def test_places_a_whole_test_split_among_published_results(
  tiny_run, tiny_rain100l, tmp_path, capsys
):
  words = [
    f'--weights={tiny_run.workdir}',
    '--data=rain100l',
    f'--source={tiny_rain100l}',
    f'--data_dir={tmp_path / "data"}',
    f'--out={tmp_path}',
    '--protocols=rgb,y',
  ]
  assert main.run_command(['eval', *words]) == 0
  content = json.loads((tmp_path / 'results.json').read_text())
  scores = {
    name: Score(**score) for name, score in content['mean']['restored'].items()
  }
  assert content['published'] == rank('rain100l', scores)
  (table,) = tables(content['published'])
  assert str(table) in capsys.readouterr().out


@pytest.mark.parametrize('recorded, used', [('xla', 'xla'), ('cpu', 'auto')])
def test_a_run_without_other_kernels_is_scored_without_them(
  tiny_run, pairs, tmp_path, monkeypatch, recorded, used
):
  config = copy.deepcopy(tiny_run.config)
  config.kernels = recorded
  with saving.Manager(tmp_path) as manager:
    saving.save(manager, tiny_run.state, make_recipe(config))

  def score_network(*args, kernels, **kwargs):
    raise ValueError(f'scored with {kernels}')

  monkeypatch.setattr(network, 'score_network', score_network)
  words = [f'--weights={tmp_path}', f'--folder={pairs}']
  with pytest.raises(ValueError, match=f'scored with {used}'):
    main.run_command(['eval', *words])


def test_a_shipped_name_is_not_the_run_in_a_folder_of_that_name(
  tiny_run, tmp_path, monkeypatch, capsys
):
  shutil.copytree(tiny_run.workdir, tmp_path / 'general')
  monkeypatch.chdir(tmp_path)
  assert main.run_command(['eval', '--weights=general']) == 1
  assert 'general has no test images of its own' in capsys.readouterr().err


@pytest.mark.parametrize(
  'arguments, message',
  [
    (('--folder=here', '--data=pairs'), '--folder goes without --data'),
    (('--data=pairs', '--source=here'), '--data=pairs needs --data_dir'),
    ((), 'any.pth has no test images of its own: give --folder PAIRS'),
    (('--weights=gone', '--folder=album'), 'gone: no weights there'),
    (('--weights=genral',), 'there; did you mean general? Give'),
    (('--protocols=rgb,yy',), "--protocols: 'yy' is unknown; choose from rgb"),
    (('--folder=gone',), 'gone'),
    (('--process_id=0',), '--coordinator'),
  ],
)
def test_options_that_do_not_fit_are_one_line(
  tmp_path, arguments, message, capsys
):
  (tmp_path / 'any.pth').touch()
  weights = f'--weights={tmp_path / "any.pth"}'
  assert main.run_command(['eval', weights, *arguments]) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: ')
  assert message in line


def test_a_command_that_fails_prints_one_line_and_no_traceback(tmp_path):
  result = _run(f'--weights={tmp_path / "gone"}', '--folder=gone')
  assert result.returncode == 1
  assert not result.stdout
  (line,) = result.stderr.splitlines()
  assert line.startswith('error: ')
