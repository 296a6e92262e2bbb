"""A file of the smallest network that changes an image."""

import jax
import numpy as np
import pytest

from mixdtp_jax.models.config import PReNetConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights.safetensors_file import write_safetensors


@pytest.fixture(scope='session')
def tiny_weights(tmp_path_factory):
  """Drawn weights of PReNet, as a .safetensors file."""
  cfg = PReNetConfig(recurrent_width=4, steps=2)
  random = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: random.normal(0, 0.1, leaf.shape).astype(np.float32),
    abstract_params(cfg),
  )
  path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
  write_safetensors(path, cfg, params)
  return path
