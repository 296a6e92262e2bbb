"""DID-Data with the paper's network, its loss and the shape of its schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels.
To compare with, under y_float: 33.17 dB / 0.9481 (PReNet), 35.29 / 0.9641
(Restormer), 35.58 / 0.9664 (SWFormer-l). MixDTPNet has no figure of it.
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.data.name = 'did'
  return config
