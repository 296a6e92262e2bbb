"""The recipe restormer_rain100l with Restormer's growing crops.

As published (arXiv:2111.09881), crops have 128, 160, 192, 256, 320 and 384
pixels, with 64, 40, 32, 16, 8 and 8 images per update, for 92, 64, 48, 36, 36
and 24 of every 300 updates. Rain100L's images have only 321 rows, so crops of
320 replace those of 384. The rate follows one cosine from the start; the
published one is constant in the first stage.

It runs on 1, 2, 4 or 8 devices. If memory is short, set accumulate_steps to 8
on one device, 4 on two, and so on.
"""

from mixdtp_jax.configs.restormer_rain100l import (
  get_config as get_restormer_config,
)


def get_config():
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
