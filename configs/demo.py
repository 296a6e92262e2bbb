"""A small network on rain drawn over photographs: minutes, no download.

Trains on three of the photographs that scikit-image ships and tests on two
others. It shows the whole way from rain to a restored image on two CPU cores
in under five minutes; its numbers compare with nothing but themselves.
"""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  config.model.width = 16
  config.model.encoder_blocks = (1, 1, 1, 1)
  config.model.decoder_blocks = (1, 1, 1)
  config.model.refinement_blocks = 1
  config.model.recurrent_width = 16
  config.model.steps = 2

  config.data.name = 'photographs'
  config.data.crop = 64
  config.batch_size = 4
  config.num_train_steps = 300

  config.optimizer.clip_norm = 1.0
  config.schedule.name = 'cosine'
  config.schedule.learning_rate = 2e-3
  config.schedule.warmup_steps = 30
  config.schedule.final_rate = 1e-5

  config.log_every_steps = 25
  config.eval_every_steps = 0
  config.eval_images = 0
  config.eval_batch_size = 1
  config.checkpoint_every_steps = 100
  return config
