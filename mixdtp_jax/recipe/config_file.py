"""Recipes, read by name or from a file, with options changed."""

import ast
import operator
import os
import pathlib
import runpy
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from mixdtp_jax.recipe.knobs import Recipe, as_mapping, make_recipe
from mixdtp_jax.runtime.files import local_path
from mixdtp_jax.runtime.options import did_you_mean

RECIPES = pathlib.Path(__file__).parents[1] / 'configs'


def load_recipe(
  recipe: str | os.PathLike, overrides: Sequence[str] = ()
) -> Recipe:
  """Returns the recipe that a get_config() describes.

  Args:
    recipe: the name of a recipe of this package, such as 'rain200l', or the
      path of a Python file. 'RECIPE:NAME' calls get_config(NAME).
    overrides: changes of it, see `override`.

  Raises:
    FileNotFoundError: there is no such recipe.
    ValueError: the recipe fails or has no get_config(), or see `override`.
  """
  name, *argument = str(recipe).split(':', 1)
  file = _find(name)
  try:
    get_config = runpy.run_path(str(file)).get('get_config')
    config = get_config(*argument) if get_config else None
  except Exception as error:
    raise ValueError(_failure(file, error)) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(
      f'{file} is no recipe: it must define get_config(), which returns a '
      'ConfigDict, as default.py of this package does'
    )
  try:
    found = make_recipe(config)
  except ValueError as error:
    raise ValueError(f'{recipe}: {error}') from error
  return override(found, overrides)


def _find(name: str) -> pathlib.Path:
  """Returns the file of a recipe, by its name or path."""
  own = RECIPES / f'{name}.py'
  if name.isidentifier() and own.is_file():
    return own
  if (file := pathlib.Path(local_path(name))).is_file():
    return file
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


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
  """Returns a copy with options changed: 'model.dtype=bfloat16'.

  ValueError if an option is unknown, or a value not in its range.
  """
  known = flat_config(as_mapping(recipe))
  changes = {}
  for text in overrides:
    name, _, value = text.partition('=')
    if name not in known:
      raise ValueError(
        f'--config.{name} is an unknown option{did_you_mean(name, known)}'
      )
    changes[name] = _parsed(value, type(operator.attrgetter(name)(recipe)))
  return change(recipe, changes)


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
  """Returns a copy with other values: {'data.crop': 64}; see `override`."""
  config = ml_collections.ConfigDict(as_mapping(recipe), type_safe=False)
  config.update_from_flattened_dict(changes)
  return make_recipe(config)


def _parsed(value: str, kind: type) -> Any:
  """Returns a value of the type, or one that its option will refuse."""
  if kind is str:
    return value
  if kind is bool:
    words = {'t': 'True', '1': 'True', 'f': 'False', '0': 'False'}
    value = words.get(value.lower(), value.capitalize())
  try:
    return float(value) if kind is float else ast.literal_eval(value)
  except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
    return value


def flat_config(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns {dotted name: value}; tuples become lists, as in JSON."""
  flat: dict[str, Any] = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      flat |= flat_config(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = _with_lists(value)
  return flat


def _with_lists(value):
  if isinstance(value, tuple | list):
    return [_with_lists(part) for part in value]
  return value
