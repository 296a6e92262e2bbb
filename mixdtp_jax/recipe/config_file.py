"""A configuration by the path of its file, where no flag library reads it."""

import ast
import os
import pathlib
import runpy
from collections.abc import Sequence
from typing import Any

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


def override(
  config: ml_collections.ConfigDict, knobs: Sequence[str]
) -> ml_collections.ConfigDict:
  """A copy with knobs changed, as `--config.KNOB=VALUE` of train.py does.

  Args:
    config: with every knob.
    knobs: KNOB=VALUE, such as model.dtype=bfloat16.

  Raises:
    ValueError: a knob is unknown, or a value of another type than the knob's.
  """
  config = config.copy_and_resolve_references()
  for text in knobs:
    name, _, value = text.partition('=')
    section = config
    *path, last = name.split('.')
    for part in path:
      section = section.get(part) if _is_section(section) else None
    if not _is_section(section) or last not in section:
      raise ValueError(f'{text}: the configuration has no knob {name}')
    section[last] = _parsed(value, section[last], text)
  return config


def _is_section(value: Any) -> bool:
  return isinstance(value, ml_collections.ConfigDict)


def _parsed(value: str, present: Any, text: str) -> Any:
  kind = type(present)
  if kind is str:
    return value
  try:
    parsed = ast.literal_eval(value.capitalize() if kind is bool else value)
  except (ValueError, SyntaxError):
    parsed = None
  if kind is float and type(parsed) is int:
    parsed = float(parsed)
  if type(parsed) is not kind:
    raise ValueError(f'{text}: needs a value like {present!r}')
  return parsed


def flat_config(config: ml_collections.ConfigDict, prefix: str = '') -> dict:
  """Dotted name -> value; JSON has no tuples, so sequences are lists."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      flat |= flat_config(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = _with_lists(value)
  return flat


def _with_lists(value):
  if isinstance(value, tuple | list):
    return [_with_lists(part) for part in value]
  return value
