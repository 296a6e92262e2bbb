"""The network for real photographs, trained on published and drawn rain.

It trains on pairs of Rain100L, Rain800 and DDN-Data, on rain drawn on their
clean halves (data set 'synthetic'), and on pairs of two clean images (data set
'pairs'), so that clean images stay unchanged. Scenes are held out across all
sets; the test split of 'pairs' is the part of rain100l/train for choices. The
rate is constant until schedule.boundaries, which a continued run may set.
"""

from mixdtp_jax.configs.demo import get_config as get_demo_config


def get_config():
  config = get_demo_config()
  config.model.encoder_blocks = (1, 2, 2, 3)
  config.model.decoder_blocks = (1, 2, 2)
  config.model.steps = 3

  config.data.name = 'pairs'
  config.data.mixture = (
    ('rain100l', 6),
    ('rain800', 5),
    ('ddn', 3),
    ('synthetic', 5),
    ('pairs', 1),
  )
  config.data.cache_mb = 6_000
  config.data.rotate = False  # rain falls down
  # A wider preset mixed: from a few lines to heavy rain; a third of the images
  # have drops on the lens.
  config.data.rain.update(
    streaks=(-10.0, 180.0),
    angle=(-40.0, 40.0),
    spread=(0.5, 4.0),
    depth=(1.0, 4.0),
    length=(12.0, 130.0),
    width=(0.5, 2.0),
    brightness=(0.05, 0.6),
    occlusion=(0.0, 1.0),
    veil=(-0.003, 0.004),
    drops=(-3.0, 1.5),
    noise=(-0.02, 0.015),
    jpeg=(-40.0, 30.0),
  )

  config.num_train_steps = 12_500
  config.ema_decay = 0.999

  config.loss.final = 'ssim_l1'
  config.loss.coarse = 'charbonnier'

  config.schedule.name = 'steps'
  config.schedule.learning_rate = 1e-3
  config.schedule.warmup_steps = 200
  config.schedule.boundaries = (11_300, 11_650, 12_000, 12_250)
  config.schedule.factor = 0.4

  config.log_every_steps = 50
  config.eval_every_steps = 5_000
  config.eval_images = 5
  config.checkpoint_every_steps = 500
  return config
