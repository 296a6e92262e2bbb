"""The network for real photographs, trained on published and drawn rain.

It trains on pairs of Rain100L, Rain800 and DDN-Data, on rain drawn on their
clean halves (data set 'synthetic'), and on pairs of two clean images (data set
'pairs'), so that clean images stay unchanged. Scenes are held out across all
sets; the test split of 'pairs' is the part of rain100l/train for choices. Near
the end the rate falls and the crops grow. It starts from the weights of
configs/general_drops.py, which find drops on the lens.
"""

from mixdtp_jax.configs.demo import get_config as get_demo_config


def get_config():
  config = get_demo_config()
  config.model.encoder_blocks = (1, 2, 2, 3)
  config.model.decoder_blocks = (1, 2, 2)
  config.model.steps = 1

  config.data.name = 'pairs'
  config.data.mixture = (
    ('rain100l', 5),
    ('rain800', 4),
    ('ddn', 3),
    ('synthetic', 15),
    ('pairs', 1),
  )
  config.data.rain_on_pairs = 0.15
  config.data.cache_mb = 6_000
  config.data.rotate = False  # rain falls down
  # Wider than the presets: from clean to heavy rain with its veil. Four of five
  # images have drops on the lens, and a third no streaks.
  config.data.rain.update(
    streaks=(-120.0, 200.0),
    angle=(-40.0, 40.0),
    spread=(0.5, 4.0),
    depth=(1.0, 4.0),
    length=(12.0, 130.0),
    width=(0.5, 2.0),
    brightness=(0.05, 0.6),
    occlusion=(0.0, 1.0),
    veil=(-0.002, 0.005),
    drops=(-1.0, 4.0),
    noise=(-0.02, 0.02),
    jpeg=(-40.0, 30.0),
  )

  config.num_train_steps = 16_000
  config.growth = ((9_500, 96, 2), (14_500, 128, 1))
  config.ema_decay = 0.999

  # Not l1 or SSIM, which overlook drops.
  config.loss.final = 'rmse'
  config.loss.coarse = 'rmse'

  config.schedule.name = 'steps'
  config.schedule.learning_rate = 5e-4
  config.schedule.warmup_steps = 200
  config.schedule.boundaries = (9_500, 12_000, 14_000, 15_200)
  config.schedule.factor = 0.4

  config.log_every_steps = 50
  config.eval_every_steps = 5_000
  config.eval_images = 5
  config.checkpoint_every_steps = 500
  return config
