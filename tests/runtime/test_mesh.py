"""Several devices compute the same as one."""

import functools
import itertools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.models import layers
from mixdtp_jax.models.config import (
  MixDTPConfig,
  PReNetConfig,
  make_model_config,
)
from mixdtp_jax.models.decoder import Upsample
from mixdtp_jax.models.detail_dilation import DetailDilation
from mixdtp_jax.models.encoder import Downsample
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.models.mixdtp import Outputs
from mixdtp_jax.models.prenet import PReNet
from mixdtp_jax.models.refinement import ProgressiveRefinement
from mixdtp_jax.models.transformer import TransformerStage
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.losses import make_loss
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.mesh import batch_sharding, make_mesh, replicated
from mixdtp_jax.tools.plan.program import Program
from mixdtp_jax.training.step import (
  apply_gradients,
  loss_and_gradients,
  make_train_step,
)
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures('quick_compiler')

_UPDATES = 3  # the first has a learning rate of 0


@functools.cache
def _batch(step):
  config = tiny.get_config()
  random = np.random.default_rng(step)
  shape = (config.batch_size, config.data.crop, config.data.crop, 3)
  clean = random.random(shape, np.float32)
  rainy = np.clip(clean + 0.2 * random.random(shape, np.float32), 0, 1)
  return {'rainy': rainy, 'clean': clean}


def _train(devices):
  """Returns the program, and states and scalars after updates."""
  mesh = make_mesh(devices)
  # A copy of its own: the step consumes what it is given.
  state = jax.device_put(
    jax.tree.map(np.copy, tiny.initial_state()), replicated(mesh)
  )
  batch = jax.device_put(_batch(0), batch_sharding(mesh))
  step_fn = make_train_step(make_recipe(tiny.get_config()), mesh)
  step_fn = step_fn.lower(state, batch).compile()
  history = []
  for step in range(_UPDATES):
    batch = jax.device_put(_batch(step), batch_sharding(mesh))
    consumed = state
    state, scalars = step_fn(state, batch)
    history.append(jax.tree.map(np.array, (state, scalars)))
    assert all(x.is_deleted() for x in jax.tree.leaves(consumed))
    assert all(
      x.sharding.is_equivalent_to(replicated(mesh), x.ndim)
      for x in jax.tree.leaves((state, scalars))
    )
  return types.SimpleNamespace(history=history, program=step_fn.as_text())


@pytest.fixture(scope='module')
def on_eight():
  return _train(jax.devices()[:8])


def _assert_close(tree, other, tolerance=2e-5):
  """Checks equality up to rounding, relative to a tensor's largest value."""

  def compare(x, y):
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max())

  jax.tree.map(compare, tree, other)


def test_the_mesh_has_all_devices():
  mesh = make_mesh()
  assert dict(mesh.shape) == {'data': 8, 'space': 1}
  assert batch_sharding(mesh).shard_shape((16, 8, 3)) == (2, 8, 3)
  assert replicated(mesh).shard_shape((16, 8, 3)) == (16, 8, 3)
  one = make_mesh(jax.devices()[:1])
  assert dict(one.shape) == {'data': 1, 'space': 1}


def test_neighbours_share_the_rows_of_an_image():
  mesh = make_mesh(space=2)
  assert dict(mesh.shape) == {'data': 4, 'space': 2}
  assert mesh.devices.tolist()[0] == jax.devices()[:2]
  assert batch_sharding(mesh).shard_shape((16, 8, 3)) == (4, 4, 3)


@pytest.mark.parametrize('space', [0, 3, 16])
def test_devices_that_cannot_be_split_are_refused(space):
  with pytest.raises(ValueError, match='does not divide the 8 devices'):
    make_mesh(space=space)


@pytest.mark.slow
def test_one_device_makes_the_updates_of_eight(on_eight):
  on_one = _train(jax.devices()[:1])
  for (state, scalars), (other, others) in zip(
    on_eight.history, on_one.history, strict=True
  ):
    _assert_close(scalars, others)
    _assert_close(state.params, other.params)
    # Adam's averages hold the gradients.
    _assert_close(state.opt_state, other.opt_state)
    assert state.step == other.step
  assert on_one.history[-1][0].step == _UPDATES


class _EveryModule(nn.Module):
  """One of each module of MixDTPNet, which compiles in a third of the time."""

  cfg: MixDTPConfig

  @nn.compact
  def __call__(self, rainy):
    cfg = self.cfg
    fine = DetailDilation(cfg)(rainy)
    fine = TransformerStage(cfg, 0, 1)(fine)
    x = Downsample()(Downsample()(Downsample()(fine)))  # as far as it goes
    x = TransformerStage(cfg, 3, 1)(x)
    x = Upsample()(Upsample()(Upsample()(x)))
    coarse = layers.Conv3x3(3)(jnp.concatenate([x, fine], axis=-1))
    return Outputs(ProgressiveRefinement(cfg)(rainy, coarse), coarse)


def _loss_and_gradients(network, devices, space):
  """Computes it for a batch of 8 images of 32 pixels, on the host."""
  mesh = make_mesh(devices, space=space)
  random = np.random.default_rng(0)
  abstract = jax.eval_shape(
    network.init, jax.random.key(0), np.zeros((1, 32, 32, 3))
  )
  params = jax.tree.map(
    lambda leaf: random.normal(0, 0.2, leaf.shape), abstract['params']
  )
  images = random.random((2, 8, 32, 32, 3))
  batch = dict(zip(('rainy', 'clean'), images, strict=True))
  function = functools.partial(
    loss_and_gradients,
    network=network,
    loss=make_loss(make_recipe(tiny.get_config()).loss),
  )
  found = jax.jit(function)(
    jax.device_put(params, replicated(mesh)),
    jax.device_put(batch, batch_sharding(mesh)),
  )
  return jax.tree.map(np.asarray, found)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('network', 'splits'),
  [
    (
      PReNet(PReNetConfig(recurrent_width=4, steps=2)),
      [(2, 2), (8, 2), (8, 4), (8, 8)],
    ),
    (
      _EveryModule(make_model_config(tiny.get_config().model)),
      [(8, 2), (8, 4)],
    ),
  ],
  ids=['prenet', 'every module'],
)
def test_any_split_has_the_loss_and_gradients_of_one_device(network, splits):
  # In float64: some gradients are sums that nearly cancel.
  with jax.enable_x64(True):
    want = _loss_and_gradients(network, jax.devices()[:1], 1)
    for count, space in splits:
      found = _loss_and_gradients(network, jax.devices()[:count], space)
      _assert_close(found, want, 1e-9)


@pytest.mark.slow
def test_data_parallelism_needs_sums_over_devices_alone(on_eight):
  exchanges = Program(on_eight.program, 8).collectives()
  assert {exchange.kind for exchange in exchanges} == {'all-reduce'}


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.*pmap.*:DeprecationWarning')
def test_pmap_with_the_mean_of_gradients_makes_the_same_updates(on_eight):
  config = tiny.get_config()
  network = make_network(make_model_config(config.model))
  loss = make_loss(make_recipe(config).loss)
  optimizer = make_optimizer(make_recipe(config))

  @functools.partial(jax.pmap, axis_name='data', in_axes=(None, 0))
  def per_device(params, batch):
    result = loss_and_gradients(params, batch, network=network, loss=loss)
    return jax.lax.pmean(result, 'data')

  update = jax.jit(
    functools.partial(apply_gradients, optimizer=optimizer, ema_decay=0)
  )
  state = tiny.initial_state()
  for step, (other, others) in enumerate(on_eight.history):
    batch = {
      side: images.reshape(8, -1, *images.shape[1:])
      for side, images in _batch(step).items()
    }
    scalars, gradients = jax.tree.map(
      lambda x: np.asarray(x[0]), per_device(state.params, batch)
    )
    state = update(state, gradients)
    _assert_close(scalars, {name: others[name] for name in scalars})
    _assert_close(state.params, other.params)
    _assert_close(state.opt_state, other.opt_state)


@pytest.mark.slow
def test_the_updates_are_no_trifle(on_eight):
  states = [state for state, _ in on_eight.history]
  # The first rate is 0; after it every tensor moves by far more than rounding.
  for before, after in itertools.pairwise(states):
    moved = jax.tree.map(
      lambda x, y: np.abs(x - y).max(), before.params, after.params
    )
    assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.slow
def test_scalars_are_of_the_batch(on_eight):
  """The loss is the weighted terms; psnr and grad_norm are what they say."""
  config = tiny.get_config()
  for state, scalars in on_eight.history:
    terms = scalars['loss_final'] + 0.5 * scalars['loss_coarse']
    np.testing.assert_allclose(scalars['loss'], terms, rtol=1e-6)
    assert 0 < scalars['psnr'] < 60
    assert scalars['grad_norm'] > 0
    expected = min(int(state.step) - 1, 2) / 2 * config.schedule.learning_rate
    np.testing.assert_allclose(
      scalars['learning_rate'], expected, rtol=1e-6, atol=1e-12
    )
