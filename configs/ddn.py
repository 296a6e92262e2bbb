"""DDN-Data with the paper's network, its loss and the shape of its schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels.
To compare with, under y_float: 32.60 dB / 0.9459 (PReNet), 34.20 / 0.9571
(Restormer), 34.51 / 0.9608 (SWFormer-l). MixDTPNet has no figure of it.
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.data.name = 'ddn'
  return config
