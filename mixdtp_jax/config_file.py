"""A configuration by the path of its file, where no flag library reads it."""

import os
import pathlib
import runpy

import ml_collections

DEFAULT = pathlib.Path(__file__).parents[1] / 'configs' / 'default.py'


def load_config_file(path: str | os.PathLike) -> ml_collections.ConfigDict:
  """What get_config() of a Python file returns.

  Args:
    path: of the file; FILE:NAME, as on train.py's command line, calls
      get_config(NAME).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it defines no get_config().
  """
  file, *name = str(path).split(':', 1)
  get_config = runpy.run_path(file).get('get_config')
  if get_config is None:
    raise ValueError(f'{file} defines no get_config(), as configs/ do')
  return get_config(*name)
