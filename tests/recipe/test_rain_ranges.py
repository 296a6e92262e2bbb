import math

import pytest

from mixdtp_jax.configs import default, synthetic_rain
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.rain_ranges import PRESETS, RainRanges


def test_configs_fill_the_section_with_a_preset():
  for config, preset in ((default, 'mixed'), (synthetic_rain, 'light')):
    drawn = make_recipe(config.get_config().to_dict()).data.rain
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
  with pytest.raises(ValueError, match=rf'rain\.{name} = .*low'):
    RainRanges(**changes)
