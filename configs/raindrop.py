"""RainDrop with the paper's network, its loss and the shape of its schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates. Crops of 128 pixels: a
drop hides more than a streak, and what is behind it has to come from around
it. Tested on test_a; published.csv has no figure of it. eval.py scores test_b
with --split=test_b.
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.data.name = 'raindrop'
  config.data.crop = 128
  return config
