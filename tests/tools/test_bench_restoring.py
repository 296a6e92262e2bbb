"""bench restoring: pictures in pieces and at once, each in its own process."""

import json

import pytest

from mixdtp_jax.recipe.config_file import load_recipe
from mixdtp_jax.tools.bench import case, restoring
from tests.helpers import tiny_prenet


@pytest.mark.slow
def test_measures_both_forms(tmp_path, capsys, environment, monkeypatch):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  case.run(
    'restoring',
    config=tiny_prenet.__file__,
    sizes='40x20',
    memory='5GB',
    pictures=0,
    overrides=[],
    out=str(tmp_path / 'out.json'),
  )
  found = json.loads((tmp_path / 'out.json').read_text())['found']
  assert list(found) == ['40x20, pieces', '40x20, whole']
  for one in found.values():
    assert one['first'] > one['again'] > 0 and one['programs'] == 1
    assert 50e6 < one['peak'] < 5e9
  rows = capsys.readouterr().out.splitlines()
  assert [row for row in rows if row.startswith('40x20, pieces  ')]


def test_too_little_memory_is_told():
  cfg = tiny_prenet_config()
  found = {'9x9': restoring._by_pieces(cfg, [(9, 9)], memory=1000)}
  assert 'at least' in found['9x9']['failure']
  assert '9x9: this image needs' in str(restoring.table(found))


def test_an_ended_process_leaves_the_other_results(monkeypatch):
  def ends(measure, *_):
    if measure is restoring._whole:
      raise ChildProcessError('exit status -11')
    return {'first': 1, 'again': 1, 'cpu': 1, 'peak': 1, 'programs': 1}

  monkeypatch.setattr(restoring, 'apart', ends)
  recipe = load_recipe(tiny_prenet.__file__, [])
  found = restoring.bench_restoring(
    case.Case(recipe, [], None), sizes='9x9,8x8', memory=None, pictures=0
  )['found']
  assert [one.get('failure') for one in found.values()] == [
    None, 'exit status -11', None, 'exit status -11',
  ]  # fmt: skip


def test_what_takes_long_is_measured_once(monkeypatch):
  monkeypatch.setattr(restoring, '_LONG', 0)
  found = restoring._by_pieces(tiny_prenet_config(), [(9, 9)] * 2, None)
  assert found['first'] > 0 and found['again'] is None and found['cpu'] > 0
  assert ' - ' in str(restoring.table({'9x9': found}))


def tiny_prenet_config():
  from mixdtp_jax.models.config import make_model_config

  return make_model_config(tiny_prenet.get_config().model)


def test_sizes_are_different_and_in_range():
  sizes = restoring.draw_sizes(1000)
  assert len(set(sizes)) == 1000
  pixels = [width * height for width, height in sizes]
  assert 0.29e6 < min(pixels) < 0.31e6 and 3.98e6 < max(pixels) <= 4e6


def test_a_size_that_is_none_is_refused():
  with pytest.raises(ValueError, match='--size 4x: needs'):
    case.run(
      'restoring',
      config=None,
      sizes='4x',
      memory=None,
      pictures=0,
      overrides=[],
      out=None,
    )
