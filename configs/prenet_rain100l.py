"""PReNet on Rain100L with its published recipe (arXiv:1901.09221).

-SSIM, Adam from 1e-3, batches of 18. An epoch is 15 cells of 100 pixels at
stride 80 from each of 200 images. 100 epochs are 16,700 updates, and the rate
falls to a fifth at epochs 30, 50 and 80. Here, crops are random, mirrored and
turned, and have 96 pixels. Published: 37.48 dB / 0.979, protocol prenet.
"""

from mixdtp_jax.configs.default import get_config as get_default_config
from mixdtp_jax.models.config import PReNetConfig, as_mapping


def get_config():
  config = get_default_config()
  config.model = as_mapping(PReNetConfig())
  config.data.name = 'rain100l'
  config.batch_size = 18
  config.num_train_steps = 16_700
  config.loss.coarse_weight = 0.0  # the coarse image is the final one
  config.schedule.learning_rate = 1e-3
  config.schedule.boundaries = (5_010, 8_350, 13_360)
  return config
