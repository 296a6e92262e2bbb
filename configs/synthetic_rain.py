"""The network of rain100l_small, trained only on drawn rain.

Light rain is drawn on clean photographs, a new one on every crop; Rain100L's
pairs are only for the test. Prepare the photographs (data set 'synthetic') and
Rain100L in one data_dir first.
"""

import dataclasses

from mixdtp_jax.configs.rain100l_small import get_config as get_small_config
from mixdtp_jax.recipe.rain_ranges import PRESETS


def get_config():
  config = get_small_config()
  config.data.mixture = (('synthetic', 1),)
  config.data.rain = dataclasses.asdict(PRESETS['light'])
  config.num_train_steps = 1500
  config.schedule.warmup_steps = 100
  config.eval_every_steps = 0
  config.eval_images = 0
  return config
