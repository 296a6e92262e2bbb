"""RainDrop with the paper's network, loss and shape of schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates. Crops have 128 pixels,
because a drop hides more than a streak and must be filled from its
surroundings. It is tested on test_a; mixdtp eval scores test_b with
--split=test_b. published.csv has no score for it.
"""

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config():
  config = get_default_config()
  config.data.name = 'raindrop'
  config.data.crop = 128
  return config
