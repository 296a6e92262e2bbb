"""The configuration: every option has an effect, mistakes are refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.models import layers
from mixdtp_jax.models.config import MixDTPConfig, PReNetConfig, RestormerConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.models.mixdtp import MixDTP, Outputs
from mixdtp_jax.models.prenet import PReNet
from mixdtp_jax.models.restormer import Restormer
from mixdtp_jax.models.transformer import TransformerStage

BASE = MixDTPConfig(
  width=4,
  encoder_blocks=(2, 1, 1, 1),
  decoder_blocks=(1, 1, 1),
  refinement_blocks=1,
  heads=(1, 1, 2, 2),
  recurrent_width=4,
  steps=1,
)
IMAGES = np.random.default_rng(0).random((1, 16, 24, 3)).astype(np.float32)


@functools.cache
def params_of(cfg):
  generator = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: generator.normal(0, 0.3, leaf.shape).astype(np.float32),
    abstract_params(cfg),
  )


@functools.cache
def outputs_of(cfg):
  return jax.jit(MixDTP(cfg).apply)({'params': params_of(cfg)}, IMAGES)


def shapes_of(cfg):
  return jax.tree.map(lambda leaf: leaf.shape, abstract_params(cfg))


def count(cfg):
  return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(cfg)))


def test_the_default_network_has_the_published_number_of_parameters():
  assert count(MixDTPConfig()) == 45_246_322


@pytest.mark.parametrize(
  'change',
  [
    {'width': 6},
    {'encoder_blocks': (1, 1, 1, 1)},
    {'encoder_blocks': (2, 1, 1, 2)},
    {'decoder_blocks': (2, 1, 1)},
    {'decoder_blocks': (1, 1, 2)},
    {'refinement_blocks': 2},
    {'heads': (2, 1, 2, 2)},
    {'ffn_expansion': 2.0},
    {'recurrent_width': 6},
    {'detail_dilation': False},
    {'steps': 0},
  ],
  ids=str,
)
def test_a_option_changes_the_parameters(change):
  assert shapes_of(dataclasses.replace(BASE, **change)) != shapes_of(BASE)


@pytest.mark.slow
@pytest.mark.parametrize('change', [{'coupling': False}, {'steps': 2}], ids=str)
def test_a_option_changes_results_but_no_parameter(change):
  cfg = dataclasses.replace(BASE, **change)
  assert shapes_of(cfg) == shapes_of(BASE)
  found, base = outputs_of(cfg), outputs_of(BASE)
  assert np.abs(found.final - base.final).max() > 1e-3
  if 'steps' in change:
    np.testing.assert_allclose(found.coarse, base.coarse, atol=1e-5)


def test_coupling_changes_the_coarse_image_and_steps_only_the_final_one():
  coarse = outputs_of(BASE).coarse
  uncoupled = outputs_of(dataclasses.replace(BASE, coupling=False)).coarse
  assert np.abs(uncoupled - coarse).max() > 1e-3
  no_steps = outputs_of(dataclasses.replace(BASE, steps=0)).coarse
  np.testing.assert_allclose(no_steps, coarse, atol=1e-5)


def test_every_option_is_in_one_of_these_tests():
  tested = {
    'width',
    'encoder_blocks',
    'decoder_blocks',
    'refinement_blocks',
    'heads',
    'ffn_expansion',
    'recurrent_width',
    'detail_dilation',
    'steps',
    'coupling',
    'scan_unroll',
    'dtype',
    'remat',
    'fused_feed_forward',
  }
  assert {field.name for field in dataclasses.fields(MixDTPConfig)} == tested


def stage_gradients(**changes):
  """Returns loss and gradients of a stage of two blocks, and what they keep."""
  cfg = dataclasses.replace(BASE, **changes)
  stage = TransformerStage(cfg, 0, blocks=2)
  x = np.random.default_rng(2).normal(size=(1, 4, 6, 4)).astype(np.float32)
  params = params_of(BASE)['mfe']['stage1']

  def loss(params, x):
    x = layers.to_compute(x, cfg.dtype)
    out = stage.apply({'params': params}, x)
    assert out.dtype == cfg.dtype
    return jnp.sum(jnp.square(out.astype(jnp.float32)))

  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)


@pytest.mark.slow
def test_unrolling_changes_neither_parameters_nor_results():
  assert shapes_of(dataclasses.replace(BASE, scan_unroll=2)) == shapes_of(BASE)
  looped, unrolled = stage_gradients(), stage_gradients(scan_unroll=2)
  for x, y in zip(
    jax.tree.leaves(looped), jax.tree.leaves(unrolled), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(x).max())
  # Fewer blocks than scan_unroll are all unrolled.
  jax.tree.map(
    np.testing.assert_array_equal, unrolled, stage_gradients(scan_unroll=5)
  )
  # Alive: two blocks are one trip of the loop, or none.
  assert trips(1) == 2
  assert trips(2) == 1


def _kept(function, *args):
  """Returns how many numbers a function's gradient keeps."""
  _, backward = jax.eval_shape(lambda *args: jax.vjp(function, *args), *args)
  return sum(leaf.size for leaf in jax.tree.leaves(backward))


@pytest.mark.slow
@pytest.mark.parametrize(
  'change',
  [{'remat': 'blocks'}, {'remat': 'full'}, {'fused_feed_forward': True}],
)
def test_rematerialising_changes_no_gradient(change):
  changed = dataclasses.replace(BASE, **change)
  assert shapes_of(changed) == shapes_of(BASE)
  for x, y in zip(
    jax.tree.leaves(stage_gradients(**change)),
    jax.tree.leaves(stage_gradients()),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(y).max())


@pytest.mark.slow
def test_rematerialising_more_keeps_less():
  x = jnp.zeros((1, 16, 16, 4))

  def kept(remat):
    stage = TransformerStage(dataclasses.replace(BASE, remat=remat), 0, 2)
    params = {'params': params_of(BASE)['mfe']['stage1']}
    return _kept(stage.apply, params, x)

  none, blocks, full = map(kept, ('none', 'blocks', 'full'))
  assert none > 5 * blocks
  # The inputs of the stage, but not those of its second block.
  assert blocks - full >= x.size


@pytest.mark.slow
def test_rematerialised_recurrent_steps_keep_less_for_the_same_gradient():
  def gradients(remat):
    cfg = PReNetConfig(recurrent_width=4, steps=2, remat=remat)

    def loss(params, rainy):
      return jnp.square(
        PReNet(cfg).apply({'params': params}, rainy).final
      ).sum()

    args = (params_of(cfg), IMAGES)
    return jax.jit(jax.grad(loss))(*args), _kept(loss, *args)

  (plain, most), (again, least) = gradients('none'), gradients('blocks')
  assert most > 3 * least
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=0, atol=1e-5 * np.abs(y).max()
    ),
    again,
    plain,
  )


def _psnr(x, y):
  return -10 * np.log10(np.square(x - y).mean())


@pytest.mark.slow
@pytest.mark.parametrize('kind', [MixDTP, PReNet, Restormer])
def test_bfloat16_is_close_to_float32(kind):
  cfg = {
    MixDTP: BASE,
    PReNet: PReNetConfig(recurrent_width=16, steps=2),
    Restormer: RestormerConfig(
      width=4,
      encoder_blocks=(1, 1, 1, 1),
      decoder_blocks=(1, 1, 1),
      refinement_blocks=1,
      heads=(1, 1, 2, 2),
    ),
  }[kind]
  params = jax.jit(kind(cfg).init)(jax.random.key(0), IMAGES)
  narrow = kind(dataclasses.replace(cfg, dtype='bfloat16'))
  found = jax.jit(narrow.apply)(params, IMAGES)
  want = jax.jit(kind(cfg).apply)(params, IMAGES)
  for x, y in zip(found, want, strict=True):
    assert x.dtype == jnp.float32
    assert 50 < _psnr(x, y) < 100  # alive: rounding shows


@pytest.mark.slow
def test_gradients_in_bfloat16_are_float32_and_close():
  narrow = stage_gradients(dtype='bfloat16')
  for found, want in zip(
    jax.tree.leaves(narrow), jax.tree.leaves(stage_gradients()), strict=True
  ):
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, want, atol=0.03 * np.abs(want).max())


def trips(unroll):
  cfg = dataclasses.replace(BASE, scan_unroll=unroll)
  stage = TransformerStage(cfg, 0, blocks=2)
  jaxpr = jax.make_jaxpr(stage.apply)(
    {'params': params_of(BASE)['mfe']['stage1']}, jnp.zeros((1, 4, 6, 4))
  )
  [scan] = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == 'scan']
  return scan.params['length'] // scan.params['unroll']


def test_without_refinement_the_coarse_image_is_the_result():
  cfg = dataclasses.replace(BASE, steps=0)
  outputs = outputs_of(cfg)
  assert isinstance(outputs, Outputs)
  np.testing.assert_array_equal(outputs.final, outputs.coarse)
  assert 'progressive' not in abstract_params(cfg)


def test_without_detail_dilation_the_embedding_is_a_plain_convolution():
  cfg = dataclasses.replace(BASE, detail_dilation=False)
  params = abstract_params(cfg)
  assert params['embed']['kernel'].shape == (3, 3, 3, 4)
  outputs = jax.eval_shape(MixDTP(cfg).apply, {'params': params}, IMAGES)
  assert outputs.final.shape == IMAGES.shape


@pytest.mark.torch
def test_weights_start_as_in_pytorch():
  import torch

  torch.manual_seed(0)
  for layer, inputs, theirs in (
    (layers.Conv3x3(64), 3, torch.nn.Conv2d(3, 64, 3, bias=False)),
    (layers.Conv3x3(128, use_bias=True), 64, torch.nn.Conv2d(64, 128, 3)),
    (layers.Conv1x1(192), 64, torch.nn.Conv2d(64, 192, 1, bias=False)),
    (
      layers.Kernel((3, 3, 1, 192)),
      None,
      torch.nn.Conv2d(192, 192, 3, groups=192, bias=False),
    ),
  ):
    images = () if inputs is None else (jnp.zeros((1, 4, 4, inputs)),)
    ours = jax.jit(layer.init)(jax.random.key(0), *images)['params']
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    assert set(ours) == ({'kernel', 'bias'} if 'bias' in state else {'kernel'})
    assert ours['kernel'].size == state['weight'].size
    for leaf, weight in (('kernel', 'weight'), ('bias', 'bias')):
      if leaf in ours:
        spread = np.std(state[weight])
        assert np.std(ours[leaf]) == pytest.approx(spread, rel=0.2)
        largest = np.abs(state[weight]).max()
        assert np.abs(ours[leaf]).max() == pytest.approx(largest, rel=0.1)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'width': 5}, 'a multiple of 2'),
    ({'width': 0}, 'from 2'),
    ({'heads': (3, 1, 1, 1)}, 'that divide'),
    ({'heads': (1, 1)}, '4 whole numbers'),
    ({'encoder_blocks': (1, 0, 1, 1)}, '4 whole numbers, from 1'),
    ({'decoder_blocks': (1, 1)}, '3 whole numbers'),
    ({'steps': -1}, 'from 0'),
    ({'scan_unroll': 0}, 'from 1'),
    ({'dtype': 'float16'}, 'one of float32, bfloat16'),
    ({'remat': 'all'}, 'one of none, blocks, full'),
  ],
)
def test_a_network_that_cannot_be_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(BASE, **change)


@pytest.mark.parametrize('shape', [(1, 12, 16, 3), (16, 16, 3), (1, 8, 8, 4)])
def test_an_image_that_does_not_fit_is_refused(shape):
  with pytest.raises(ValueError, match='needs'):
    MixDTP(BASE).apply({'params': params_of(BASE)}, np.zeros(shape))
