"""PReNet and Restormer: their options, and agreement with PyTorch."""

import dataclasses

import jax
import numpy as np
import pytest

from mixdtp_jax.models.config import PReNetConfig, RestormerConfig
from mixdtp_jax.models.factory import abstract_params, make_network

pytestmark = pytest.mark.usefixtures('quick_compiler')

RESTORMER = RestormerConfig(
  width=4,
  encoder_blocks=(1, 2, 1, 1),
  decoder_blocks=(2, 1, 1),
  refinement_blocks=1,
  heads=(1, 2, 2, 4),
)
PRENET = PReNetConfig(recurrent_width=4, steps=2)
IMAGES = np.random.default_rng(0).random((2, 16, 24, 3))


def params_of(cfg):
  random = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: random.normal(0, 0.3, leaf.shape), abstract_params(cfg)
  )


def outputs_of(cfg, images=IMAGES):
  # In float64: a layer norm of nearly equal channels blows up the rounding.
  with jax.enable_x64(True):
    apply = jax.jit(make_network(cfg).apply)
    variables = {'params': params_of(cfg)}
    compiled = apply.lower(variables, images).compile(
      {'xla_backend_optimization_level': 0}
    )
    return jax.tree.map(np.asarray, compiled(variables, images))


@pytest.mark.torch
@pytest.mark.parametrize('cfg', [RESTORMER, PRENET], ids=lambda c: c.name)
def test_the_same_numbers_as_in_pytorch_by_the_published_names(cfg):
  import torch

  from mixdtp_jax.torch_reference.network import make_torch_network
  from mixdtp_jax.weights.names import infer_config
  from mixdtp_jax.weights.state_dict import from_torch, to_torch

  params = params_of(cfg)
  state_dict = to_torch(params, cfg)
  network = make_torch_network(cfg).double()
  network.load_state_dict(
    {name: torch.from_numpy(value) for name, value in state_dict.items()},
    strict=True,
  )
  final, coarse = network(torch.from_numpy(IMAGES).movedim(-1, 1))
  assert final is coarse
  ours = outputs_of(cfg)
  theirs = final.detach().movedim(1, -1).numpy()
  scale = np.abs(theirs).max()
  np.testing.assert_allclose(ours.final, theirs, rtol=0, atol=1e-9 * scale)
  np.testing.assert_array_equal(ours.final, ours.coarse)
  inferred = infer_config(state_dict)
  if cfg is PRENET:  # no shape tells the steps: the published 6
    assert inferred.steps == 6
    inferred = dataclasses.replace(inferred, steps=cfg.steps)
  assert inferred == cfg
  back = from_torch(state_dict, inferred)
  jax.tree.map(np.testing.assert_array_equal, back, params)


def test_restormer_has_published_names():
  names_lib = pytest.importorskip('mixdtp_jax.weights.names')
  names = names_lib.slots(RestormerConfig())
  # 44 blocks of 11 parameters, the embedding, the output, six convolutions
  # that resize and two that reduce.
  assert len(names) == 44 * 11 + 2 + 6 + 2
  assert {
    'patch_embed.proj.weight',
    'encoder_level1.3.attn.temperature',
    'down3_4.body.0.weight',
    'latent.7.ffn.dwconv.weight',
    'up4_3.body.0.weight',
    'reduce_chan_level2.weight',
    'decoder_level1.3.norm2.body.bias',
    'refinement.3.attn.qkv_dwconv.weight',
    'output.weight',
  } <= set(names)
  assert 'reduce_chan_level1.weight' not in names


@pytest.mark.slow
def test_restormer_adds_its_input():
  params = jax.tree.map(np.zeros_like, params_of(RESTORMER))
  with jax.enable_x64(True):
    network = make_network(RESTORMER)
    outputs = jax.jit(network.apply)({'params': params}, IMAGES)
  np.testing.assert_array_equal(outputs.final, IMAGES)


def test_prenet_takes_any_size_and_restormer_multiples_of_8():
  odd = IMAGES[:1, :13, :9]
  assert outputs_of(PRENET, odd).final.shape == odd.shape
  with pytest.raises(ValueError, match='13x9 pixels: needs multiples of 8'):
    outputs_of(RESTORMER, odd)


@pytest.mark.parametrize(
  'change', [{'steps': 3}, {'recurrent_width': 5}], ids=str
)
def test_every_option_of_prenet_is_alive(change):
  changed = dataclasses.replace(PRENET, **change)
  difference = outputs_of(changed).final - outputs_of(PRENET).final
  assert np.abs(difference).max() > 1e-3


@pytest.mark.parametrize(
  'change',
  [
    {'width': 8},
    {'encoder_blocks': (1, 1, 1, 1)},
    {'decoder_blocks': (1, 1, 1)},
    {'refinement_blocks': 2},
    {'heads': (1, 2, 2, 2)},
    {'ffn_expansion': 1.5},
  ],
  ids=str,
)
def test_every_option_of_restormer_is_alive(change):
  def shapes(cfg):
    return jax.tree.map(lambda leaf: leaf.shape, abstract_params(cfg))

  changed = dataclasses.replace(RESTORMER, **change)
  assert shapes(changed) != shapes(RESTORMER)


@pytest.mark.parametrize(
  ('change', 'message'),
  [({'steps': 0}, 'steps = 0: needs'), ({'recurrent_width': 0}, 'from 1')],
)
def test_a_prenet_that_cannot_be_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(PRENET, **change)
