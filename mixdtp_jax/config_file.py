"""A configuration by the path of its file, where no flag library reads it."""

import os
import runpy

import ml_collections


def load_config_file(path: str | os.PathLike) -> ml_collections.ConfigDict:
  """What get_config() of the Python file returns.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it defines no get_config().
  """
  get_config = runpy.run_path(str(path)).get('get_config')
  if get_config is None:
    raise ValueError(f'{path} defines no get_config(), as configs/ do')
  return get_config()
