"""The network for real photographs, trained on published and drawn rain.

It trains on pairs of Rain100L, Rain800 and DDN-Data, on rain drawn on their
clean halves (data set 'synthetic'), and on pairs of two clean images (data set
'pairs'), so that clean images stay unchanged. Scenes are held out across all
sets; the test split of 'pairs' is the part of rain100l/train for choices. Near
the end the rate falls and the crops grow.
"""

from mixdtp_jax.configs.demo import get_config as get_demo_config


def get_config():
  config = get_demo_config()
  config.model.encoder_blocks = (1, 2, 2, 3)
  config.model.decoder_blocks = (1, 2, 2)
  config.model.steps = 3

  config.data.name = 'pairs'
  config.data.mixture = (
    ('rain100l', 5),
    ('rain800', 5),
    ('ddn', 3),
    ('synthetic', 9),
    ('pairs', 1),
  )
  config.data.rain_on_pairs = 0.15
  config.data.cache_mb = 6_000
  config.data.rotate = False  # rain falls down
  # Wider than the presets: from clean to heavy rain with its veil. Three
  # fifths of the images have drops on the lens.
  config.data.rain.update(
    streaks=(-10.0, 200.0),
    angle=(-40.0, 40.0),
    spread=(0.5, 4.0),
    depth=(1.0, 4.0),
    length=(12.0, 130.0),
    width=(0.5, 2.0),
    brightness=(0.05, 0.6),
    occlusion=(0.0, 1.0),
    veil=(-0.002, 0.005),
    drops=(-2.0, 3.0),
    noise=(-0.02, 0.02),
    jpeg=(-40.0, 30.0),
  )

  config.num_train_steps = 12_500
  config.growth = ((7_500, 96, 2), (11_200, 128, 1))
  config.ema_decay = 0.999

  config.loss.final = 'ssim_l1'
  config.loss.coarse = 'charbonnier'

  config.schedule.name = 'steps'
  config.schedule.learning_rate = 1e-3
  config.schedule.warmup_steps = 200
  config.schedule.boundaries = (8_000, 9_800, 11_200, 11_900)
  config.schedule.factor = 0.4

  config.log_every_steps = 50
  config.eval_every_steps = 5_000
  config.eval_images = 5
  config.checkpoint_every_steps = 500
  return config
