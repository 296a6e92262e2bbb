"""Recipes, read by name or from a file, with options changed."""

import ast
import os
import pathlib
import runpy
import traceback
from collections.abc import Sequence
from typing import Any

import ml_collections

from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime.spelling import did_you_mean

RECIPES = pathlib.Path(__file__).parents[1] / 'configs'


def load_config_file(
  recipe: str | os.PathLike, overrides: Sequence[str] = ()
) -> ml_collections.ConfigDict:
  """Returns the options of a recipe, as its get_config() returns them.

  Args:
    recipe: the name of a recipe of this package, such as 'rain200l', or the
      path of a Python file. 'RECIPE:NAME' calls get_config(NAME).
    overrides: 'OPTION=VALUE', see `override`.

  Raises:
    FileNotFoundError: there is no such recipe.
    ValueError: the recipe fails or has no get_config(), an option does not
      exist, or a value is not in its range.
  """
  name, *argument = str(recipe).split(':', 1)
  file = _find(name)
  try:
    get_config = runpy.run_path(str(file)).get('get_config')
    config = get_config(*argument) if get_config else None
  except Exception as error:
    raise ValueError(_failure(file, error)) from error
  if not _is_section(config):
    raise ValueError(
      f'{file} is no recipe: it must define get_config(), which returns a '
      'ConfigDict, as default.py of this package does'
    )
  config = override(config, overrides)
  try:
    make_recipe(config.to_dict())
  except ValueError as error:
    raise ValueError(f'{recipe}: {error}') from error
  return config


def _find(name: str) -> pathlib.Path:
  """Returns the file of a recipe, by its name or path."""
  own = RECIPES / f'{name}.py'
  if name.isidentifier() and own.is_file():
    return own
  if pathlib.Path(name).is_file():
    return pathlib.Path(name)
  names = sorted(p.stem for p in RECIPES.glob('[!_]*.py'))
  nearest = did_you_mean(pathlib.Path(name).stem, names) or '.'
  raise FileNotFoundError(
    f'--config={name}: there is no such file or recipe{nearest} Give the '
    f'path of a file, or one of {", ".join(names)}'
  )


def _failure(file: pathlib.Path, error: Exception) -> str:
  """Says where a recipe failed, and why."""
  frames = traceback.extract_tb(error.__traceback__)
  lines = [f.lineno for f in frames if f.filename == str(file)]
  where = f'{file}, line {lines[-1]}' if lines else str(file)
  kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
  return f'{where}: {kind}{error}'


def override(
  config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> ml_collections.ConfigDict:
  """Returns a copy with options changed, as --config.OPTION=VALUE does.

  Args:
    config: all options of a recipe.
    overrides: 'OPTION=VALUE', such as 'model.dtype=bfloat16'.

  Raises:
    ValueError: an option is unknown, or a value is not of the option's type.
  """
  config = config.copy_and_resolve_references()
  for text in overrides:
    name, _, value = text.partition('=')
    section = config
    *path, last = name.split('.')
    for part in path:
      section = section.get(part) if _is_section(section) else None
    if not _is_section(section) or last not in section:
      nearest = did_you_mean(name, flat_config(config))
      raise ValueError(f'--config.{name} is an unknown option{nearest}')
    section[last] = _parsed(value, section[last], text)
  return config


def _is_section(value: Any) -> bool:
  return isinstance(value, ml_collections.ConfigDict)


def _parsed(value: str, present: Any, text: str) -> Any:
  kind = type(present)
  if kind is str:
    return value
  if kind is bool:
    value = {'t': 'true', '1': 'true', 'f': 'false', '0': 'false'}.get(
      value.lower(), value
    )
    value = value.capitalize()
  try:
    parsed = float(value) if kind is float else ast.literal_eval(value)
  except (ValueError, SyntaxError):
    parsed = None
  if type(parsed) is not kind:
    raise ValueError(f'--config.{text}: needs a value like {present!r}')
  return parsed


def flat_config(config: ml_collections.ConfigDict, prefix: str = '') -> dict:
  """Returns {dotted name: value}; tuples become lists, as in JSON."""
  flat = {}
  for name, value in config.items():
    if _is_section(value):
      flat |= flat_config(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = _with_lists(value)
  return flat


def _with_lists(value):
  if isinstance(value, tuple | list):
    return [_with_lists(part) for part in value]
  return value
