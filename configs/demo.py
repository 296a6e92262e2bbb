"""A demonstration: a small network, drawn rain, no download.

It trains on three photographs that scikit-image ships and tests on two others,
in under five minutes on two CPU cores. Its scores cannot be compared with
others.
"""

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config():
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
