"""The recipe rain100l, guarded against a collapse of SSIM.

The -SSIM loss has no gradient where SSIM is 0, so a run that lands there never
recovers. Here, gradients are clipped, the rate first grows over 1,000 updates,
and the loss is 0.84 (-SSIM) + 0.16 l1, whose l1 part pulls images back.
"""

from mixdtp_jax.configs.rain100l import get_config as get_rain100l_config


def get_config():
  config = get_rain100l_config()
  config.loss.final = 'ssim_l1'
  config.optimizer.clip_norm = 1.0
  config.schedule.warmup_steps = 1000
  return config
