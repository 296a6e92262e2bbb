"""Rain100H with the paper's network, its loss and the shape of its schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates, which are 44 epochs of 15
crops of 96 pixels of each of 1800 images (63 of PReNet's 1254). To compare
with: 30.32 dB / 0.938 (MixDTPNet; rgb, images cropped to multiples of 32),
29.46 / 0.899 (PReNet, of the 1254; prenet).
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.data.name = 'rain100h'
  return config
