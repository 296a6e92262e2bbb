"""Configurations by name, and the interface of every network."""

import dataclasses

import jax
import numpy as np
import pytest

from mixdtp_jax.models.config import (
  EXECUTION,
  MixDTPConfig,
  PReNetConfig,
  RestormerConfig,
  as_mapping,
  make_model_config,
)
from mixdtp_jax.models.factory import abstract_params, final_image, make_network
from mixdtp_jax.models.mixdtp import MixDTP
from mixdtp_jax.models.prenet import PReNet
from mixdtp_jax.models.restormer import Restormer

pytestmark = pytest.mark.usefixtures('quick_compiler')

PUBLISHED = {
  MixDTPConfig: (MixDTP, 45_246_322),
  RestormerConfig: (Restormer, 26_126_644),
  PReNetConfig: (PReNet, 168_963),
}


@pytest.mark.parametrize('kind', PUBLISHED)
def test_the_published_number_of_parameters(kind):
  network, count = PUBLISHED[kind]
  assert isinstance(make_network(kind()), network)
  leaves = jax.tree.leaves(abstract_params(kind()))
  assert sum(leaf.size for leaf in leaves) == count


_ODD = {
  'width': 6,
  'encoder_blocks': (1, 2, 3, 1),
  'decoder_blocks': (2, 1, 3),
  'refinement_blocks': 2,
  'heads': (1, 2, 3, 4),
  'ffn_expansion': 1.7,
}


@pytest.mark.parametrize(
  'cfg',
  [
    *(kind() for kind in PUBLISHED),
    MixDTPConfig(**_ODD, recurrent_width=5, steps=1),
    MixDTPConfig(**_ODD, detail_dilation=False, coupling=False, steps=0),
    RestormerConfig(**_ODD),
    PReNetConfig(recurrent_width=3, steps=1),
  ],
)
def test_shapes_are_those_of_the_network(cfg):
  network = make_network(cfg)
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  traced = jax.eval_shape(network.init, key, image)['params']
  assert abstract_params(cfg) == traced


@pytest.mark.parametrize('kind', PUBLISHED)
def test_a_mapping_and_back(kind):
  cfg = dataclasses.replace(
    kind(), **{'scan_unroll': 2} if kind != PReNetConfig else {'steps': 2}
  )
  assert make_model_config(as_mapping(cfg)) == cfg


def test_a_mapping_needs_exactly_the_fields_of_its_network():
  mapping = as_mapping(RestormerConfig())
  listed = mapping | {'heads': [1, 2, 4, 8]}
  assert make_model_config(listed) == RestormerConfig()
  with pytest.raises(ValueError, match='unknown option model.steps'):
    make_model_config(mapping | {'steps': 3})
  with pytest.raises(ValueError, match='missing option model.coupling'):
    make_model_config(mapping | {'name': 'mixdtp'})
  for field in EXECUTION:  # older weights lack them
    del listed[field]
  assert make_model_config(listed) == RestormerConfig()
  with pytest.raises(ValueError, match="'mprnet': needs one of mixdtp"):
    make_model_config(mapping | {'name': 'mprnet'})
  del mapping['name']
  with pytest.raises(ValueError, match='None: needs one of'):
    make_model_config(mapping)


def test_final_image_is_one_function_a_configuration():
  cfg = PReNetConfig(recurrent_width=4, steps=2)
  assert final_image(cfg) is final_image(dataclasses.replace(cfg))
  random = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: random.normal(0, 0.2, leaf.shape).astype(np.float32),
    abstract_params(cfg),
  )
  images = random.random((1, 5, 7, 3)).astype(np.float32)
  np.testing.assert_array_equal(
    final_image(cfg)(params, images),
    make_network(cfg).apply({'params': params}, images).final,
  )
