"""Restormer on Rain100L, after its published recipe (arXiv:2111.09881).

L1, AdamW from 3e-4 to 1e-6, weight decay 1e-4, and gradients clipped to a norm
of 0.01, as published for deraining. The published run makes 300,000 updates on
Rain13K with crops that grow from 128 to 384 pixels; this one makes a quarter of
them on Rain100L with crops of 128. No score was published for this training
set.
"""

from mixdtp_jax.configs.default import get_config as get_default_config
from mixdtp_jax.models.config import RestormerConfig, as_mapping


def get_config():
  config = get_default_config()
  config.model = as_mapping(RestormerConfig())
  config.data.name = 'rain100l'
  config.data.crop = 128
  config.batch_size = 8
  config.num_train_steps = 75_000

  config.loss.final = 'l1'
  config.loss.coarse_weight = 0.0  # the coarse image is the final one

  config.optimizer.name = 'adamw'
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 0.01

  config.schedule.name = 'cosine'
  config.schedule.learning_rate = 3e-4
  config.schedule.final_rate = 1e-6
  return config
