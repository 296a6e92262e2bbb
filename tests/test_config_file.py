import pathlib

import pytest

from configs import ablation, rain100l
from mixdtp_jax.config_file import load_config_file


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
