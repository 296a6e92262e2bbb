"""Recipes by name, file and path, and their options changed."""

import pathlib

import pytest

from mixdtp_jax.configs import ablation, rain100l
from mixdtp_jax.recipe.config_file import load_recipe, override
from mixdtp_jax.recipe.knobs import make_recipe


def test_loads_by_name_wherever_one_is(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert load_recipe('rain100l') == make_recipe(rain100l.get_config())
  # A file of the same name needs its ending, or a folder.
  (tmp_path / 'rain100l').mkdir()
  assert load_recipe('rain100l') == make_recipe(rain100l.get_config())


def test_loads_by_path(monkeypatch):
  path = pathlib.Path(rain100l.__file__)
  monkeypatch.setenv('HOME', str(path.parent))
  assert load_recipe('~/rain100l.py') == make_recipe(rain100l.get_config())
  assert load_recipe(path) == make_recipe(rain100l.get_config())
  assert load_recipe(str(path)) == make_recipe(rain100l.get_config())


@pytest.mark.parametrize('recipe', ['ablation', ablation.__file__])
def test_passes_on_a_name(recipe):
  config = load_recipe(f'{recipe}:steps6')
  assert config == make_recipe(ablation.get_config('steps6'))
  assert config != make_recipe(ablation.get_config())


@pytest.mark.parametrize(
  ('recipe', 'message'),
  [
    ('rain100', 'no such file or recipe; did you mean rain100l?'),
    ('configs/rain13.py', 'did you mean rain13k?'),
    ('nothing/like/it.py', 'recipe. Give the path of a file, or one of ablat'),
  ],
)
def test_names_the_recipes_that_exist(recipe, message):
  with pytest.raises(FileNotFoundError, match=f'^--config={recipe}: ') as error:
    load_recipe(recipe)
  assert message in str(error.value)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('config = {}', 'is no recipe: it must define get_config()'),
    ('def get_config():\n  return {}', 'is no recipe'),
    ('def get_config(:', 'SyntaxError'),
    ('import nothing_of_this_name', ', line 1: ModuleNotFoundError'),
    (
      'from mixdtp_jax.configs import demo\n'
      'def get_config():\n'
      '  config = demo.get_config()\n'
      '  config.data.name = config.dataa.name\n',
      ', line 4: AttributeError',
    ),
    (
      'from mixdtp_jax.configs import demo\n'
      'def get_config():\n'
      '  config = demo.get_config()\n'
      '  config.batchsize = 3\n'
      '  return config\n',
      'unknown option batchsize; did you mean batch_size?',
    ),
    *(
      (
        'import ml_collections\n'
        'def get_config():\n'
        f'  return ml_collections.ConfigDict({{"data": {value}}})\n',
        f'data = {value}: needs a group of options',
      )
      for value in (None, 5, [])
    ),
  ],
)
def test_refuses_what_is_no_recipe(tmp_path, text, message):
  file = tmp_path / 'mine.py'
  file.write_text(text + '\n')
  with pytest.raises(ValueError, match=f'^{file}') as error:
    load_recipe(file)
  assert message in str(error.value)


def test_changes_options():
  config = make_recipe(rain100l.get_config())
  changed = override(
    config,
    [
      'model.dtype=bfloat16',
      'batch_size=16',
      'ema_decay=0.5',
      'optimizer.clip_norm=1',
      'data.flip=false',
      'data.rotate=0',
      'data.transpose_landscape=True',
      'data.source=a=b',
      'growth=((5, 128, 8),)',
    ],
  )
  assert changed.model.dtype == 'bfloat16'
  assert changed.batch_size == 16
  assert changed.ema_decay == 0.5
  assert changed.optimizer.clip_norm == 1.0
  assert changed.data.flip is False
  assert changed.data.rotate is False
  assert changed.data.transpose_landscape is True
  assert changed.data.source == 'a=b'
  assert changed.growth == ((5, 128, 8),)
  assert config == make_recipe(rain100l.get_config())
  assert load_recipe('rain100l', ['batch_size=16']).batch_size == 16


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      'model.widht=3',
      'model.widht is an unknown option; did you mean model.wi',
    ),
    ('seed.x=3', '--config.seed.x is an unknown option'),
    ('absent.x=3', '--config.absent.x is an unknown option'),
    ('batch_size=many', "batch_size = 'many': needs a whole number, at"),
    ('batch_size=1.5', 'batch_size = 1.5: needs a whole number, at'),
    ('batch_size', "batch_size = '': needs a whole number, at"),
    ('data.flip=2', 'data.flip = 2: needs True or False'),
    ('growth=3', 'growth = 3: needs '),
    ('growth={{5,64,4}}', 'growth = .{{5,64,4}}.: needs '),
    ('batch_size=' + '9' * 5000, 'batch_size = .9{197}'),
    ('model=3', '--config.model is an unknown option'),
  ],
)
def test_refuses_unknown_options_and_values_of_another_type(text, message):
  with pytest.raises(ValueError, match=message):
    override(make_recipe(rain100l.get_config()), [text])
