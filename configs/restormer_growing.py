"""configs/restormer_rain100l.py with Restormer's growing crops.

As published (arXiv:2111.09881): crops of 128, 160, 192, 256, 320 and 384 pixels
with 64, 40, 32, 16, 8 and 8 images an update, which take 92, 64, 48, 36, 36 and
24 of every 300 updates. Rain100L's images have 321 rows: there is no room for
the 384, whose updates the 320 have. The rate falls by one cosine from the
start; as published it is constant during the first stage.

For 1, 2, 4 or 8 devices; where one lacks the memory, accumulate_steps=8 on one
device, 4 on two, and so on.
"""

import ml_collections

from mixdtp_jax.configs.restormer_rain100l import (
  get_config as get_restormer_config,
)


def get_config() -> ml_collections.ConfigDict:
  config = get_restormer_config()  # 75,000 updates
  config.data.crop = 128
  config.batch_size = 64
  config.growth = (
    (23_000, 160, 40),
    (39_000, 192, 32),
    (51_000, 256, 16),
    (60_000, 320, 8),
  )
  return config
