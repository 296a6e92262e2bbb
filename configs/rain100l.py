"""Rain100L with the paper's network, loss and schedule.

An epoch is 15 cells of 96 pixels from each of 200 images, in batches of 4. 100
epochs are 75,000 updates, and the rate falls at epochs 30, 50 and 80. Here,
crops are random, mirrored and turned. Published: 40.91 dB / 0.991, protocol
rgb, images cropped to multiples of 32.
"""

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config():
  config = get_default_config()
  config.data.name = 'rain100l'
  config.num_train_steps = 75_000
  config.schedule.boundaries = (22_500, 37_500, 60_000)
  return config
