"""Rain100L's 200 pairs alone, for a run of hours on two CPU cores.

The recipe `general` with a wider refinement: 0.75 million operations for each
pixel, where PReNet has 2.0 million. No finished run of it is recorded yet.
"""

from mixdtp_jax.configs.general import get_config as get_general_config


def get_config():
  config = get_general_config()
  config.model.recurrent_width = 24

  config.data.name = 'rain100l'
  config.data.mixture = ()

  config.num_train_steps = 30_000
  config.schedule.boundaries = (24_000, 26_000, 28_000, 29_000)
  config.eval_every_steps = 0
  return config
