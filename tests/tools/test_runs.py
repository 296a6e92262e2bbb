"""Runs side by side: folders with real checkpoints, metrics and results."""

import contextlib
import html.parser
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu import metric_writers
from scipy import stats

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.cli import main
from mixdtp_jax.evaluation import results
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score
from mixdtp_jax.evaluation.score import Row, mean_row
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.recipe.knobs import as_mapping, make_recipe
from mixdtp_jax.tools.runs import runs
from mixdtp_jax.tools.runs.event_log import Point
from mixdtp_jax.tools.runs.run_folder import read_run
from mixdtp_jax.tools.runs.runs import (
  compare_runs,
  data_note,
  differences,
  page_content,
  run_table,
)
from mixdtp_jax.tools.runs.variants import find_variants
from tests.helpers import tiny

_REPOSITORY = pathlib.Path(__file__).parents[2]
_END = 20  # tiny's num_train_steps


def _rows(psnr, images=2, offset=0.0):
  """Rows with mean rgb PSNR `psnr`, and another under each protocol."""
  return [
    Row(
      f'image {i}',
      {p: Score(20.0 + n + offset, 0.5) for n, p in enumerate(PROTOCOLS)},
      {p: Score(psnr + n, 0.9) for n, p in enumerate(PROTOCOLS)},
    )
    for i in range(images)
  ]


def _make_run(workdir, evaluations, *, end=_END, config=None, **rows):
  """A run of `end` updates: {step: rgb PSNR}; `rows` as of _rows."""
  config = config or tiny.get_config()
  shapes = abstract_params(make_model_config(config.model))
  params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  state = TrainState(jnp.int32(end), params, {'count': jnp.int32(end)})
  with saving.Manager(workdir) as manager:
    saving.save(manager, state, make_recipe(config))
  with contextlib.closing(
    metric_writers.create_default_writer(str(workdir))
  ) as writer:
    for step in range(1, end + 1):
      writer.write_scalars(step, {'loss': 1 / step, 'psnr': 10.0 + step})
      if step in evaluations:
        mean = mean_row(_rows(evaluations[step], **rows))
        scalars = {
          f'eval/{which}_{protocol}_{field}': value
          for which in ('input', 'restored')
          for protocol, score in getattr(mean, which).items()
          for field, value in score._asdict().items()
        }
        writer.write_scalars(step, scalars)
  if end in evaluations and end == config.num_train_steps:
    _write_results(workdir, _rows(evaluations[end], **rows), end)
  return workdir


def _write_results(workdir, rows, step):
  results.write_json(
    rows, workdir / 'results' / 'results.json', {'step': step, 'config': {}}
  )


def _text(runs_):
  return str(run_table(runs_, with_options=True))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('finished') / 'first'
  return _make_run(folder, {10: 28.0, 20: 30.25})


@pytest.fixture(scope='module')
def running(tmp_path_factory):
  config = tiny.get_config()
  config.model.width = 16
  config.schedule.learning_rate = 1e-3
  config.loss.final = 'l1'
  config.data.data_dir = config.compilation_cache_dir = 'elsewhere'
  folder = tmp_path_factory.mktemp('running') / 'second'
  return _make_run(folder, {5: 27.0, 10: 31.5}, end=13, config=config)


def test_a_finished_run(finished):
  run = read_run(finished, 'name')
  assert run.final and run.images == 2 and run.last.step == run.evaluated == 20
  assert run.input['rgb'] == (20.0, 0.5) and run.restored['y'] == (32.25, 0.9)
  assert set(run.restored) == set(PROTOCOLS)
  cfg = make_model_config(tiny.get_config().model)
  with saving.Manager(finished) as manager:
    params = restoring.restore_params(manager, 20, abstract_params(cfg))
  assert run.parameters == sum(map(np.size, jax.tree.leaves(params)))
  assert run.config['model.encoder_blocks'] == [1, 1, 1, 1]
  rainy, points = run.curve('rgb')
  assert rainy == 20
  assert [(p.step, p.value) for p in points] == [(10, 28.0), (20, 30.25)]
  assert (
    run.last.minutes > run.scalars['loss'][-1].minutes > 0
  )  # then evaluated


def test_a_running_run_has_the_scores_of_its_newest_evaluation(running):
  run = read_run(running, 'name')
  assert not run.final and run.images == 2  # config.eval_images
  assert run.last.step == 13 and run.evaluated == 10
  assert run.restored['rgb'] == (31.5, pytest.approx(0.9))
  assert run.input['prenet'] == (24.0, 0.5)
  (line,) = [v for v in _text([run]).splitlines() if v[:4] == 'name']
  assert '13 of 20' in line and 'after 10, not final' in line


def test_results_of_an_earlier_end_are_not_final(tmp_path):
  config = tiny.get_config()
  config.num_train_steps = 8
  workdir = _make_run(tmp_path, {4: 27.0, 7: 28.0}, end=8, config=config)
  assert not read_run(workdir, 'name').final  # the last evaluation is under way
  _write_results(workdir, _rows(33.0, images=5), 7)
  assert read_run(workdir, 'name').restored['rgb'].psnr == 28
  _write_results(workdir, _rows(33.0, images=5), 8)
  run = read_run(workdir, 'name')
  assert run.final and run.restored['rgb'].psnr == 33 and run.images == 5
  # `mixdtp eval` may have written there instead, or an older version of it.
  path = workdir / 'results' / 'results.json'
  for context in ({'update': 8}, {'step': None}, {'step': 'best'}):
    results.write_json(_rows(math.inf), path, {'weights': 'x'} | context)
    assert not read_run(workdir, 'name').final


def test_a_run_whose_images_are_not_finite_comes_last(finished, running):
  run = read_run(finished, 'name')
  run.restored['rgb'] = Score(math.nan, math.nan)
  assert runs._psnr(run) < runs._psnr(read_run(running, 'name'))


def test_runs_on_the_same_images_are_ordered(finished, running, capsys):
  compare_runs([finished, running], finished.parent / 'out')
  lines = capsys.readouterr().out.splitlines()
  # No sentence above the table.
  assert lines[0].split()[:4] == ['run', 'parameters', 'updates', 'minutes']
  assert [line.split()[0] for line in lines[1:3]] == ['second', 'first']
  assert '31.5000 / 0.9000' in lines[1] and '30.2500 / 0.9000' in lines[2]
  assert 'model.width=16' in lines[1] and 'model.width=8' in lines[2]
  assert 'protocol rgb' in lines[3]


def test_only_options_that_differ_are_named(finished, running):
  runs_ = [read_run(finished, 'a'), read_run(running, 'b')]
  assert differences(runs_) == {
    'model.width': [8, 16],
    'loss.final': ['negative_ssim', 'l1'],
    'schedule.learning_rate': [5e-3, 1e-3],
  }
  assert differences(runs_[:1]) == {}
  del runs_[1].config['model.width']  # of another version
  assert differences(runs_)['model.width'] == [8, None]
  assert 'model.width=- ' in _text(runs_)


def test_different_images_are_told_and_not_ranked(finished, tmp_path, capsys):
  config = tiny.get_config()
  config.data.source = 'OTHER'
  other = _make_run(
    tmp_path / 'other', {20: 39.0}, config=config, images=3, offset=0.25
  )
  out = tmp_path / 'out'
  compare_runs([finished, other], out)
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('The runs were evaluated on different images')
  assert lines[1] == ''
  for part in (
    'first: data.source = ,',
    'images = 2, input PSNR = 20.000 dB',
    'other: data.source = OTHER, images = 3, input PSNR = 20.250 dB',
  ):
    assert part in lines[0]
  assert 'data.name' not in lines[0]
  assert [line.split()[0] for line in lines[3:5]] == ['first', 'other']
  assert json.loads((out / 'runs.json').read_text())['note'] == lines[0]
  assert 'evaluated on different images' in (out / 'runs.html').read_text()


def test_the_same_images_elsewhere_are_the_same(finished, tmp_path):
  config = tiny.get_config()
  config.data.source = '/elsewhere'
  other = read_run(_make_run(tmp_path, {20: 39.0}, config=config), 'other')
  one = read_run(finished, 'one')
  assert data_note([one, other]) == '' and differences([one, other]) == {}
  # A run without an evaluation has no images that could differ.
  new = read_run(_make_run(tmp_path / 'new', {}, end=2), 'new')
  assert new.evaluated is None and data_note([new, one, other]) == ''
  line = _text([new, one]).splitlines()[1]
  assert 'not yet' in line and ' - ' in line


def test_a_curve_is_of_the_same_images(finished):
  run = read_run(finished, 'name')
  # At the end, all images are evaluated instead of a part.
  rainy = [Point(10, 1, 20.0), Point(15, 2, 20.001), Point(20, 3, 20.01)]
  restored = [Point(10, 1, 28.0), Point(15, 2, 29.0), Point(20, 3, 25.0)]
  run.scalars['eval/input_y_psnr'] = rainy
  run.scalars['eval/restored_y_psnr'] = restored
  assert run.curve('y') == (20, restored[:2])
  assert run.curve('none')[1] == []


def test_curves_of_different_images_are_told(finished):
  one, other = (read_run(finished, name) for name in ('one', 'other'))
  differ = 'These images differ: the curves do not compare.'
  assert differ not in page_content([one, other], '')['chart_notes']
  points = other.scalars['eval/input_rgb_psnr']
  points[:] = [point._replace(value=21.0) for point in points]
  assert differ in page_content([one, other], '')['chart_notes']


def test_loss_curves_are_means_of_their_parts():
  points = [Point(i, i / 60, (-1.0) ** i) for i in range(1, 1001)]
  means = runs._means(points)
  assert len(means) == 100
  assert means[0] == (5.5, pytest.approx(5.5 / 60), 0)
  assert runs._means(points[:100]) == points[:100] and runs._means([]) == []


def test_errors_name_the_folder(finished, tmp_path):
  out = tmp_path / 'out'
  link = tmp_path / 'link'
  link.symlink_to(finished)
  empty = tmp_path / 'empty'
  for workdirs, kind, message in (
    ([finished, link], ValueError, f'{finished} is given twice'),
    ([finished, empty], FileNotFoundError, f'{empty}: no training run'),
  ):
    with pytest.raises(kind, match=message):
      compare_runs(workdirs, out)
  workdir = _make_run(tmp_path / 'unlogged', {}, end=1)
  for path in workdir.glob('events*'):
    path.unlink()
  with pytest.raises(FileNotFoundError, match=f'{workdir}: no metrics'):
    compare_runs([workdir], out)
  assert not out.exists()


def test_damaged_results_are_named(finished, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / 'run')
  path = workdir / 'results' / 'results.json'
  for content in ('', '[]', '{"context": []}', '{"context": {"step": 20}}'):
    path.write_text(content)
    with pytest.raises(ValueError, match=f'{path} is damaged: remove it, or'):
      compare_runs([workdir], tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_a_run_of_another_version_is_named(tmp_path, monkeypatch):
  def newer(recipe):
    values = as_mapping(recipe)
    return values | {'model': values['model'] | {'new': 1}}

  monkeypatch.setattr(saving, 'as_mapping', newer)
  workdir = _make_run(tmp_path, {}, end=1)
  message = f'{workdir}: unknown option model.new'
  with pytest.raises(ValueError, match=message):
    read_run(workdir, 'name')


def _compare(*arguments):
  command = [sys.executable, '-m', 'mixdtp_jax', 'runs', *arguments]
  return subprocess.run(
    list(map(str, command)),
    cwd=_REPOSITORY,
    env={k: v for k, v in os.environ.items() if k != 'TF_CPP_MIN_LOG_LEVEL'},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


class _Texts(html.parser.HTMLParser):
  def __init__(self, content):
    super().__init__()
    self.found = []
    self.feed(content)

  def handle_data(self, data):
    self.found.append(data)


def test_the_command(finished, running, tmp_path):
  before = {p: p.stat().st_mtime_ns for p in running.rglob('*')}
  out = tmp_path / 'out'
  result = _compare(finished, running, '--out', out)
  assert result.returncode == 0, result.stderr
  # Nothing imports TensorFlow, which takes seconds and talks.
  assert 'oneDNN' not in result.stderr and 'tensorflow' not in result.stderr
  for name in ('runs.json', 'runs.html'):
    assert str(out / name) in result.stdout.splitlines()
  assert sorted(p.name for p in out.iterdir()) == ['runs.html', 'runs.json']
  # Looking at a run that is still training changes nothing there.
  assert {p: p.stat().st_mtime_ns for p in running.rglob('*')} == before

  content = json.loads((out / 'runs.json').read_text())
  assert content['protocol'] == 'rgb' and content['note'] == ''
  assert content['differences']['loss.final'] == ['l1', 'negative_ssim']
  second, first = content['runs']
  assert (second['name'], first['workdir']) == ('second', str(finished))
  assert first['restored']['rgb'] == {'psnr': 30.25, 'ssim': 0.9}
  assert (first['final'], second['final']) == (True, False)
  assert (second['updates'], second['evaluated']) == (13, 10)
  steps, minutes, values = np.transpose(second['scalars']['loss'])
  np.testing.assert_array_equal(steps, range(1, 14))
  np.testing.assert_allclose(values, 1 / steps, rtol=1e-6)
  assert minutes[0] == 0 and (np.diff(minutes) >= 0).all()

  texts = _Texts((out / 'runs.html').read_text()).found
  assert 'PSNR by time' in texts and '34.2500 / 0.9000' in texts
  assert any('do not compare: loss.final' in text for text in texts)


def test_the_command_fails_in_one_line(tmp_path, capsys):
  words = ['runs', str(tmp_path / 'none'), '--out', str(tmp_path / 'out')]
  assert main.run_command(words) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f'error: {tmp_path / "none"}: no training')


def test_variants_are_compared_seed_by_seed(tmp_path, capsys):
  psnr = {
    ('base', 'negative_ssim'): (30.0, 31.0, 33.0),
    ('l1', 'l1'): (30.4, 31.5, 33.6),  # 0.4, 0.5 and 0.6 above
    ('mse', 'mse'): (29.0, 31.5, 33.2),  # -1, 0.5 and 0.2
  }
  workdirs = []
  for (name, loss), values in psnr.items():
    for seed, value in enumerate(values):
      config = tiny.get_config()
      config.seed, config.loss.final = seed, loss
      folder = tmp_path / f'{name}{seed}'
      workdirs.append(_make_run(folder, {20: value}, config=config))
  config = tiny.get_config()
  config.seed, config.model.width = 0, 16  # one seed alone says nothing
  workdirs.append(_make_run(tmp_path / 'alone', {20: 40.0}, config=config))
  out = tmp_path / 'out'
  compare_runs(workdirs, out)

  base, l1, mse = json.loads((out / 'runs.json').read_text())['variants']
  assert base['name'] == 'base' and base['gain'] is None
  assert base['seeds'] == [0, 1, 2]
  assert base['psnr'] == pytest.approx(94 / 3)
  for variant, gains, finding in (
    (l1, [0.4, 0.5, 0.6], 'better'),
    (mse, [-1, 0.5, 0.2], 'not decided'),
  ):
    low, high = stats.t.interval(
      0.95, 2, loc=np.mean(gains), scale=stats.sem(gains)
    )
    assert variant['gain'] == pytest.approx((low + high) / 2)
    assert variant['interval'] == pytest.approx((high - low) / 2, rel=1e-4)
    assert variant['finding'] == finding
  table = capsys.readouterr().out.split('\n\n')[1].splitlines()
  assert table[0] == 'Variants, each with the same seeds'
  assert table[3].split() == [
    *('loss.final=l1', '0', '1', '2', '31.833', '/', '0.9000'),
    *('+0.500', '±', '0.248', 'better'),
  ]
  assert 'width' not in '\n'.join(table)
  assert 'Variants, each with the same seeds' in (out / 'runs.html').read_text()


def test_single_runs_are_no_variants(finished, running):
  runs_ = [read_run(finished, 'a'), read_run(running, 'b')]
  assert find_variants(runs_, differences(runs_), 'rgb') == []
