import dataclasses
import math

import ml_collections
import pytest

from mixdtp_jax.configs import default, synthetic_rain
from mixdtp_jax.recipe.rain_ranges import (
  PRESETS,
  RainRanges,
  as_mapping,
  make_rain_ranges,
)


@pytest.mark.parametrize('name', PRESETS)
def test_a_config_gives_its_ranges_back(name):
  section = ml_collections.ConfigDict(as_mapping(PRESETS[name]))
  assert make_rain_ranges(section) == PRESETS[name]


def test_configs_fill_the_section_with_a_preset():
  for config, preset in ((default, 'mixed'), (synthetic_rain, 'light')):
    drawn = make_rain_ranges(config.get_config().data.rain)
    assert drawn == PRESETS[preset]


def test_ranges_become_floats():
  assert repr(RainRanges(streaks=[1, 2]).streaks) == '(1.0, 2.0)'


@pytest.mark.parametrize(
  'changes',
  [
    {'angle': (10, -10)},
    {'angle': 5.0},
    {'angle': (1, 2, 3)},
    {'angle': ('low', 'high')},
    {'angle': (math.nan, 1)},
    {'streaks': (0, math.inf)},
    {'noise': (-math.inf, 1)},
    {'depth': (0.5, 2)},
    {'occlusion': (0, 1.1)},
    {'jpeg': (0, 100)},
  ],
)
def test_a_bad_range_is_named(changes):
  (name,) = changes
  with pytest.raises(ValueError, match=rf'rain\.{name} = .*low <= high'):
    RainRanges(**changes)


def test_names_are_exact():
  mapping = as_mapping(PRESETS['light'])
  with pytest.raises(ValueError, match='unknown ranges of rain: fog'):
    make_rain_ranges(mapping | {'fog': (0, 1)})
  for field in dataclasses.fields(RainRanges):
    rest = {k: v for k, v in mapping.items() if k != field.name}
    with pytest.raises(ValueError, match=f'missing .*: {field.name}'):
      make_rain_ranges(rest)
