"""A recipe with the smallest network, which starts quickly."""

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config
from mixdtp_jax.models.config import PReNetConfig, as_mapping


def get_config() -> ml_collections.ConfigDict:
  config = get_default_config()
  network = PReNetConfig(recurrent_width=4, steps=1)
  config.model = ml_collections.ConfigDict(as_mapping(network))
  config.data.crop = 16
  config.batch_size = 2
  return config
