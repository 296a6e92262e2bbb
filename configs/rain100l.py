"""Rain100L with the paper's network and recipe, for a GPU box or a TPU pod.

The paper's loss and schedule. Its epoch is the 15 cells of 96 pixels of each
of 200 images, in batches of 4; 100 of them are 75,000 updates, and the rate
falls at epochs 30, 50 and 80. The crops here are random, with flips and turns.
The published figure is 40.91 dB / 0.991: protocol rgb, each image cropped to
multiples of 32.
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.data.name = 'rain100l'
  config.num_train_steps = 75_000
  config.schedule.boundaries = (22_500, 37_500, 60_000)
  return config
