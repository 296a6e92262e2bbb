import pathlib

import pytest

from mixdtp_jax.configs import ablation, rain100l
from mixdtp_jax.recipe.config_file import load_config_file, override


def test_loads_by_path():
  path = pathlib.Path(rain100l.__file__)
  assert load_config_file(path) == rain100l.get_config()
  assert load_config_file(str(path)) == rain100l.get_config()


def test_passes_on_a_name():
  config = load_config_file(f'{ablation.__file__}:steps6')
  assert config == ablation.get_config('steps6') != ablation.get_config()


def test_refuses_what_is_no_configuration(tmp_path):
  with pytest.raises(FileNotFoundError, match='gone.py'):
    load_config_file(tmp_path / 'gone.py')
  (tmp_path / 'x.py').write_text('config = {}\n')
  with pytest.raises(ValueError, match=r'x\.py defines no get_config\(\)'):
    load_config_file(tmp_path / 'x.py')


def test_overrides_knobs_as_train_py_does():
  config = rain100l.get_config()
  changed = override(
    config,
    [
      'model.dtype=bfloat16',
      'batch_size=16',
      'ema_decay=0.5',
      'optimizer.clip_norm=1',
      'data.flip=false',
      'data.source=a=b',
      'growth=((5, 128, 8),)',
    ],
  )
  assert changed.model.dtype == 'bfloat16'
  assert changed.batch_size == 16
  assert changed.ema_decay == 0.5
  assert changed.optimizer.clip_norm == 1.0
  assert changed.data.flip is False
  assert changed.data.source == 'a=b'
  assert changed.growth == ((5, 128, 8),)
  assert config == rain100l.get_config()


@pytest.mark.parametrize(
  ('knob', 'message'),
  [
    ('model.depth=3', 'the configuration has no knob model.depth'),
    ('seed.x=3', 'the configuration has no knob seed.x'),
    ('absent.x=3', 'the configuration has no knob absent.x'),
    ('batch_size=many', 'batch_size=many: needs a value like 4'),
    ('batch_size=1.5', 'needs a value like 4'),
    ('batch_size', 'needs a value like 4'),
    ('data.flip=1', 'needs a value like True'),
    ('growth=3', r'needs a value like \(\)'),
    ('model=3', 'model=3: '),
  ],
)
def test_refuses_what_is_no_knob_or_no_value_of_it(knob, message):
  with pytest.raises(ValueError, match=message):
    override(rain100l.get_config(), [knob])
