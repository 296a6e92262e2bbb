"""Rain200H with the paper's network, its loss and the shape of its schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels.
To compare with: 24.56 dB / 0.847 (MixDTPNet; rgb, images cropped to multiples
of 32); under y 29.04 / 0.8991 (PReNet), 32.00 / 0.9329 (Restormer), 33.09 /
0.9441 (SWFormer-l).
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.data.name = 'rain200h'
  return config
