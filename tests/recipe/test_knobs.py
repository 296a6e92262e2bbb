"""Every option: its range, its type, its relations, and its place in docs."""

import dataclasses
import json
import math

import numpy as np
import pytest

from mixdtp_jax.data.datasets.published import DATASETS
from mixdtp_jax.models.config import NETWORKS, UNetConfig
from mixdtp_jax.recipe import losses
from mixdtp_jax.recipe.config_file import flat_config, load_recipe
from mixdtp_jax.recipe.knobs import (
  DATA_SETS,
  LOSSES,
  Data,
  Loss,
  Optimizer,
  Recipe,
  Schedule,
  as_mapping,
  make_recipe,
)
from mixdtp_jax.recipe.rain_ranges import RainRanges
from tests.helpers import options_page

GROUPS = (Recipe, Data, RainRanges, Loss, Optimizer, Schedule)
# What stands where a default has no number to replace.
EXAMPLES = {
  'growth': ((1, 8, 1),),
  'data.mixture': (('pairs', 1),),
  'schedule.boundaries': (5,),
}
# Another option or default decides at the end of the range.
RELATED = {
  ('model.heads', 4096),
  ('model.ffn_expansion', 0),
  ('accumulate_steps', 2**31 - 1),
  ('schedule.warmup_steps', 2**31 - 1),
}


def options():
  """Yields (network, name, field) of every option."""
  for kind in (*GROUPS, *NETWORKS.values()):
    network = kind.name if kind in NETWORKS.values() else 'prenet'
    for field in dataclasses.fields(kind):
      if 'rule' in field.metadata:
        yield network, kind.prefix + field.name, field


OPTIONS = {f'{net}-{name}': (net, name, f) for net, name, f in options()}


def recipe(network, name, value):
  """Makes a recipe of `network` with one option changed."""
  values = as_mapping(Recipe(model=NETWORKS[network]()))
  values['optimizer']['name'] = 'adamw'  # takes every weight decay
  *path, last = name.split('.')
  section = values
  for part in path:
    section = section[part]
  section[last] = value
  return make_recipe(values)


def refused(network, name, value):
  with pytest.raises(ValueError) as error:  # noqa: PT011
    recipe(network, name, value)
  text = str(error.value)
  assert text.startswith(f'{name} = '), text
  assert ': needs ' in text
  assert '\n' not in text


def replaced(value, number):
  """Returns the value with each number replaced."""
  if isinstance(value, tuple):
    return tuple(replaced(part, number) for part in value)
  return value if isinstance(value, str) else number


def limits(field, name):
  """Returns an example, and the least and the largest number."""
  example = EXAMPLES.get(name, field.default)
  whole = type(np.ravel(example)[-1]) in (np.int64, np.str_)
  usual = 2**31 - 1 if whole else float(np.finfo(np.float32).max)
  rule = field.metadata['rule']
  least = -usual if rule.least is None else rule.least
  most = usual if rule.most is None else rule.most
  return example, *map(int if whole else float, (least, most))


NUMBERS = [k for k, (_, name, field) in OPTIONS.items()
           if isinstance(field.default, tuple | float | int)
           and not isinstance(field.default, bool)]  # fmt: skip


def test_every_option_is_walked_over():
  walked = {name for _, name, _ in OPTIONS.values()} | {'model.name'}
  assert walked >= set(flat_config(as_mapping(load_recipe('default'))))
  assert len(NUMBERS) > 40


@pytest.mark.parametrize('key', NUMBERS)
def test_numbers_outside_their_range_are_refused(key):
  network, name, field = OPTIONS[key]
  example, least, most = limits(field, name)
  step = 1 if isinstance(least, int) else 0
  below = least - step if step else np.nextafter(least, -math.inf).item()
  above = most + step if step else np.nextafter(most, math.inf).item()
  for number in (below, above, -1e300, 1e300, math.nan, math.inf, -math.inf):
    refused(network, name, replaced(example, number))


@pytest.mark.parametrize('key', NUMBERS)
def test_numbers_at_the_ends_of_their_range_are_taken(key):
  network, name, field = OPTIONS[key]
  example, least, most = limits(field, name)
  for number in (least, most):
    if (name, number) in RELATED or name == 'growth' and number > 1:
      continue
    value = replaced(example, number)
    made = recipe(network, name, value)
    for part in name.split('.'):
      made = getattr(made, part)
    assert made == value


@pytest.mark.parametrize('key', OPTIONS)
def test_values_of_another_type_are_refused(key):
  network, name, field = OPTIONS[key]
  example = EXAMPLES.get(name, field.default)
  others = [None, {}, object(), b'text', 1j, [[]], (1, 2, 3, 4, 5, 6), 'odd']
  if not isinstance(example, tuple):
    others += [[example], (example,)]
  if not isinstance(example, bool):
    others += [True]
  if not isinstance(example, float):
    others += [1.5]
  for value in others:
    if isinstance(example, str) and isinstance(value, str):
      value = value if field.metadata['rule'].choices else 5
    if name == 'schedule.boundaries' and value == (1, 2, 3, 4, 5, 6):
      continue
    refused(network, name, value)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (['num_train_steps=30'], 'schedule.warmup_steps = 30: .* = 30'),
    (
      ['schedule.final_rate=1'],
      'schedule.final_rate = 1.0: .*learning_rate = 0.002',
    ),
    (['optimizer.weight_decay=0.1'], 'optimizer.weight_decay = 0.1: .*adamw'),
    (['data.crop=60'], 'data.crop = 60: needs multiples of 8 for mixdtp'),
    (['growth=((5,60,4),)'], 'growth, from update 5 on: data.crop = 60: needs'),
    (['growth=((5,64,4),(5,64,4))'], 'growth = .*: needs updates that rise'),
    (['growth=((300,64,4),)'], 'growth = .*to below num_train_steps = 300'),
    (['accumulate_steps=3'], 'batch_size = 4: .*accumulate_steps = 3'),
    (['model.heads=(3,3,3,3)'], r'model.heads = .*\(16, 32, 64, 128\)'),
    (['model.ffn_expansion=0.01'], 'model.ffn_expansion = 0.01: .*of 16 ch'),
    (["data.mixture=(('did',1),('did',2))"], 'data.mixture = .*each set once'),
    (["data.mixture=(('rain',1),)"], 'data.mixture = .*rain.*: needs sets of'),
    (['data.name=rain100'], "data.name = 'rain100': needs one of pairs, synth"),
    (['data.rain.angle=(10,-10)'], 'data.rain.angle = .*: needs low <= high'),
    (
      ['schedule.name=steps', 'schedule.boundaries=(60,50)'],
      r'schedule.boundaries = \(60, 50\): needs updates that rise',
    ),
    (
      ['schedule.name=steps', 'schedule.boundaries=(5,50)'],
      'schedule.boundaries = .*after schedule.warmup_steps = 30',
    ),
    (['optimizer.clip_norm=nan'], 'optimizer.clip_norm = nan: needs a number'),
  ],
)
def test_options_that_contradict_are_refused(overrides, message):
  with pytest.raises(ValueError, match=f'^{message}'):
    load_recipe('demo', overrides)


def test_a_stored_recipe_may_lack_options():
  stored = json.loads(json.dumps(as_mapping(Recipe(batch_size=7))))
  assert make_recipe(stored) == Recipe(batch_size=7)
  del stored['growth'], stored['data']['rain'], stored['loss']
  del stored['model']['remat'], stored['kernels']
  assert make_recipe(stored) == Recipe(batch_size=7)


def test_an_unknown_option_is_refused():
  with pytest.raises(ValueError, match='unknown option data.fog'):
    make_recipe({'data': {'fog': 1}})


def test_the_names_are_those_of_the_code():
  assert tuple(losses.LOSSES) == LOSSES
  assert tuple(DATASETS) == DATA_SETS


def test_the_page_of_options_is_that_of_the_code():
  assert options_page.PAGE.read_text() == options_page.page(), (
    'write it with `python -m tests.helpers.options_page`'
  )
  for _, name, _ in OPTIONS.values():
    assert f'| `{name}` |' in options_page.page()
  assert UNetConfig.multiple == 8
