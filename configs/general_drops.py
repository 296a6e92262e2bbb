"""Drops on the lens alone: the first part of the training of `general`.

A network that removes streaks overlooks drops. Its loss is the mean squared
error, because l1 and SSIM gain nothing from a drop that is not yet certain.
configs/general.py goes on with all kinds of rain.
"""

from mixdtp_jax.configs.general import get_config as get_general_config


def get_config():
  config = get_general_config()
  config.data.mixture = (('synthetic', 1),)
  config.data.crop = 64
  config.batch_size = 4
  config.data.rain.update(
    streaks=(0.0, 0.0),
    veil=(0.0, 0.0),
    drops=(1.0, 8.0),
    noise=(0.0, 0.0),
    jpeg=(-40.0, 0.0),
  )
  config.num_train_steps = 10_108
  config.growth = ()
  config.ema_decay = 0.99
  config.loss.final = 'mse'
  config.loss.coarse = 'mse'
  config.schedule.learning_rate = 1e-3
  config.schedule.boundaries = ()
  config.eval_every_steps = 0
  return config
