"""Rain800 with the paper's network, loss and shape of schedule.

The rate falls at 30, 50 and 80 % of 105,000 updates: 40 epochs of 15 crops of
96 pixels from each of 700 images. published.csv has no score for it: papers use
its test pairs as Test100, after training on Rain13K.
"""

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config():
  config = get_default_config()
  config.data.name = 'rain800'
  config.num_train_steps = 105_000
  config.schedule.boundaries = (31_500, 52_500, 84_000)
  return config
