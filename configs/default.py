"""Every option, with its unit. The other recipes import this and override.

Nothing in the code has a default of its own: an option that is not listed here
does not exist, and an unknown one is refused.
"""

import ml_collections

from mixdtp_jax.models.config import MixDTPConfig, as_mapping
from mixdtp_jax.recipe import rain_ranges


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.seed = 0  # of the weights, the order of the images and the crops

  # The network: its name (mixdtp, prenet, restormer) and the fields of its
  # class in mixdtp_jax/models/config.py, which describes them.
  config.model = ml_collections.ConfigDict(as_mapping(MixDTPConfig()))

  config.data = data = ml_collections.ConfigDict()
  data.name = 'pairs'  # a key of mixdtp_jax.data.datasets.DATASETS
  # Sets to train on instead of data.name, which is then only tested on: pairs
  # of a set's name and its weight, the number of its crops in each round of
  # all sets. All except data.name must be prepared in data_dir.
  data.mixture = ()
  data.source = ''  # folder of the files as published
  data.data_dir = ''  # prepared copy; '' is WORKDIR/data
  data.cache_mb = 2_048  # MiB of decoded images kept by a process; 0: none
  data.crop = 96  # pixels, a multiple of 8 and of mesh_space
  data.crops = 'random'  # random or second_cell, the published one
  data.transpose_landscape = False  # before the crop: every image upright
  data.flip = True  # mirror half of the crops left to right
  data.rotate = True  # turn each crop by 0, 1, 2 or 3 quarters

  # Rain that is drawn on clean photographs: (low, high) of each field of
  # RainRanges in mixdtp_jax/recipe/rain_ranges.py, which has their units.
  data.rain = ml_collections.ConfigDict(
    rain_ranges.as_mapping(rain_ranges.PRESETS['mixed'])
  )

  config.init_from = ''  # run, weights folder or .pth; '' draws from the seed
  config.batch_size = 4  # images an update, over all devices and hosts
  config.accumulate_steps = 1  # equal parts of a batch, one after another
  # Later stages, each (its first update, data.crop, batch_size); () has none.
  config.growth = ()
  config.num_train_steps = 300_000  # updates
  config.ema_decay = 0.0  # an update, of the averaged weights; 0 has none

  config.loss = loss = ml_collections.ConfigDict()
  loss.final = 'negative_ssim'  # a key of mixdtp_jax.recipe.losses.LOSSES
  loss.coarse = 'mse'  # the same
  loss.coarse_weight = 0.5

  config.optimizer = optimizer = ml_collections.ConfigDict()
  optimizer.name = 'adam'  # adam or adamw
  optimizer.b1 = 0.9
  optimizer.b2 = 0.999
  optimizer.eps = 1e-8
  optimizer.weight_decay = 0.0  # adamw only; adam refuses another value
  optimizer.clip_norm = 0.0  # largest global gradient norm; 0 never clips

  config.schedule = schedule = ml_collections.ConfigDict()
  schedule.name = 'steps'  # steps or cosine
  schedule.learning_rate = 1e-4  # the highest
  schedule.boundaries = (90_000, 150_000, 240_000)  # steps: updates
  schedule.factor = 0.2  # steps: the rate is multiplied at each boundary
  schedule.warmup_steps = 0  # updates of linear growth from 0, either name
  schedule.final_rate = 1e-6  # cosine: the rate at the last update

  config.mesh_space = 1  # devices that share the rows of each image
  config.compilation_cache_dir = ''  # '' is WORKDIR/compiled

  config.log_every_steps = 50  # updates
  config.collapse_patience = 200  # updates of SSIM 0 that end a run; 0: never
  config.eval_every_steps = 5_000  # updates; 0: only at the end
  config.eval_images = 20  # of the test split, while training; 0: all of them
  config.eval_batch_size = 8  # images of equal size at once, over all devices
  config.eval_crop_multiple = 1  # pixels; 1: whole images, 32: as published
  config.checkpoint_every_steps = 1_000  # updates
  config.keep_checkpoints = 3  # the newest ones
  return config
