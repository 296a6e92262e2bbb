"""Rain200L with the paper's network, its loss and the shape of its schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels.
To compare with: 36.27 dB / 0.980 (MixDTPNet; rgb, images cropped to multiples
of 32); under y 37.80 / 0.9814 (PReNet), 40.99 / 0.9890 (Restormer), 42.70 /
0.9922 (SWFormer-l).
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.data.name = 'rain200l'
  return config
