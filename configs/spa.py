"""SPA-Data with the paper's network, its loss and the shape of its schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels,
two crops of each of the 638,492 images of 256. To compare with: 32.43 dB /
0.916 (MixDTPNet; rgb, images cropped to multiples of 32); under y 40.16 /
0.9816 (PReNet), 47.98 / 0.9921 (Restormer), 50.28 / 0.9943 (SWFormer-l).
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.data.name = 'spa'
  return config
