"""Rain100L with a network of 0.8 M parameters, for two CPU cores.

The paper's loss, with small crops, a warm-up and a cosine schedule, because
half an hour on a CPU is a few thousand updates.
"""

from mixdtp_jax.configs.demo import get_config as get_demo_config


def get_config():
  config = get_demo_config()
  config.data.name = 'rain100l'
  config.num_train_steps = 6000

  config.schedule.learning_rate = 1e-3
  config.schedule.warmup_steps = 200

  config.log_every_steps = 50
  config.eval_every_steps = 2000
  config.eval_images = 10
  config.checkpoint_every_steps = 500
  return config
