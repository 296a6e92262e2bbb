"""The small network of rain100l_small.py, trained on drawn rain alone.

Light rain over clean photographs, drawn anew on every crop, and no rainy
photograph; tested on Rain100L's real pairs. Prepare the photographs (as
'synthetic') and Rain100L in one data_dir first. README.md has the results.
"""

import ml_collections

from mixdtp_jax.configs.rain100l_small import get_config as get_small_config
from mixdtp_jax.recipe.rain_ranges import PRESETS, as_mapping


def get_config() -> ml_collections.ConfigDict:
  config = get_small_config()
  config.data.mixture = (('synthetic', 1),)
  config.data.rain = ml_collections.ConfigDict(as_mapping(PRESETS['light']))
  config.num_train_steps = 1500
  config.schedule.warmup_steps = 100
  config.eval_every_steps = 0
  config.eval_images = 0
  return config
