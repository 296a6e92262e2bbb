"""Rain100L's 200 pairs alone: the run that made the weights `rain100l`.

The recipe `general` with a wider refinement: 0.75 million operations for each
pixel, where PReNet has 2.0 million. Three hours of two CPU cores. While the
rate falls, the crops are larger: channel attention then sees more of an image.
"""

from mixdtp_jax.configs.general import get_config as get_general_config


def get_config():
  config = get_general_config()
  config.model.recurrent_width = 24

  config.data.name = 'rain100l'
  config.data.mixture = ()
  config.data.rain_on_pairs = 0.0

  config.num_train_steps = 17_300
  config.schedule.boundaries = (13_500, 15_000, 16_200, 16_800)
  config.growth = ((15_000, 96, 2),)
  config.eval_every_steps = 0
  return config
