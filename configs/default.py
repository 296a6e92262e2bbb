"""The default recipe: every option, with its unit. Other recipes change it.

Options that are not listed here do not exist, and are refused. The code has no
defaults of its own.
"""

import ml_collections

from mixdtp_jax.models.config import MixDTPConfig, as_mapping
from mixdtp_jax.recipe import rain_ranges


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.seed = 0  # for weights, the order of images, crops and drawn rain

  # The network: its name (mixdtp, prenet, restormer), and the fields of its
  # class in mixdtp_jax/models/config.py, where they are described.
  config.model = ml_collections.ConfigDict(as_mapping(MixDTPConfig()))

  config.data = data = ml_collections.ConfigDict()
  data.name = 'pairs'  # a key of DATASETS in data/datasets/registry.py
  # Sets to train on instead of data.name, which then only gives test images:
  # pairs of a set's name and its weight, the number of its crops in each round
  # of all sets. All except data.name must be prepared in data_dir.
  data.mixture = ()
  data.source = ''  # folder of the original files
  data.data_dir = ''  # folder of prepared copies; '': WORKDIR/data
  data.cache_mb = 2_048  # MiB of decoded images in memory; 0: none
  data.crop = 96  # pixels, a multiple of 8 and of mesh_space
  data.crops = 'random'  # random, or second_cell as in the original code
  data.transpose_landscape = False  # make every image upright before cropping
  data.flip = True  # mirror half of the crops left to right
  data.rotate = True  # turn each crop by 0, 1, 2 or 3 quarter turns

  # Rain drawn on clean photographs: (low, high) for each field of RainRanges in
  # mixdtp_jax/recipe/rain_ranges.py, where the units are.
  data.rain = ml_collections.ConfigDict(
    rain_ranges.as_mapping(rain_ranges.PRESETS['mixed'])
  )

  config.init_from = ''  # weights to start from; '': drawn from the seed
  config.batch_size = 4  # images per update, over all devices and hosts
  config.accumulate_steps = 1  # equal parts of a batch, one after another
  # Later stages: (first update, data.crop, batch_size) for each; (): none.
  config.growth = ()
  config.num_train_steps = 300_000  # updates
  config.ema_decay = 0.0  # of the weights' moving average, per update; 0: none

  config.loss = loss = ml_collections.ConfigDict()
  loss.final = 'negative_ssim'  # a key of LOSSES in recipe/losses.py
  loss.coarse = 'mse'  # a key of LOSSES
  loss.coarse_weight = 0.5

  config.optimizer = optimizer = ml_collections.ConfigDict()
  optimizer.name = 'adam'  # adam or adamw
  optimizer.b1 = 0.9
  optimizer.b2 = 0.999
  optimizer.eps = 1e-8
  optimizer.weight_decay = 0.0  # only for adamw
  optimizer.clip_norm = 0.0  # largest global gradient norm; 0: no limit

  config.schedule = schedule = ml_collections.ConfigDict()
  schedule.name = 'steps'  # steps or cosine
  schedule.learning_rate = 1e-4  # the highest
  schedule.boundaries = (90_000, 150_000, 240_000)  # updates, for steps
  schedule.factor = 0.2  # for the rate at each boundary, for steps
  schedule.warmup_steps = 0  # updates of linear growth from 0
  schedule.final_rate = 1e-6  # at the last update, for cosine

  config.mesh_space = 1  # devices that share the rows of each image
  config.compilation_cache_dir = ''  # '': WORKDIR/compiled

  config.log_every_steps = 50  # updates
  config.collapse_patience = 200  # updates of SSIM 0 that end a run; 0: never
  config.eval_every_steps = 5_000  # updates; 0: only at the end
  config.eval_images = 20  # test images while training; 0: all
  config.eval_batch_size = 8  # images of equal size, over all devices
  config.eval_crop_multiple = 1  # pixels; 1: whole images, 32: as published
  config.checkpoint_every_steps = 1_000  # updates
  config.keep_checkpoints = 3  # number of newest checkpoints to keep
  return config


def for_data_set(name: str) -> ml_collections.ConfigDict:
  """Returns the default recipe for another data set."""
  config = get_config()
  config.data.name = name
  return config
