"""One update: parts of a batch, averaged weights, every shape of batch."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from mixdtp_jax.configs.default import get_config
from mixdtp_jax.models.config import PReNetConfig, as_mapping, make_model_config
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.mesh import batch_sharding, make_mesh, replicated
from mixdtp_jax.tools.plan.program import Program
from mixdtp_jax.training.step import (
  as_float,
  compile_ahead,
  init_state,
  make_train_step,
)

pytestmark = pytest.mark.usefixtures('quick_compiler')


def _config(**changes):
  config = get_config()
  config.model = ml_collections.ConfigDict(
    as_mapping(PReNetConfig(recurrent_width=4, steps=1))
  )
  config.batch_size, config.data.crop = 16, 12
  config.optimizer.eps = 1e-3
  config.schedule.learning_rate = 1e-2
  config.update(changes)
  return config


def _batch(size=16, crop=12):
  random = np.random.default_rng(size)
  clean, noise = random.random((2, size, crop, crop, 3), np.float32)
  return {'rainy': 0.7 * clean + 0.3 * noise, 'clean': clean}


def _levels(size=16, crop=12):
  return jax.tree.map(lambda x: np.uint8(255 * x), _batch(size, crop))


def _state(config, mesh):
  init = functools.partial(
    init_state,
    config.seed,
    make_network(make_model_config(config.model)),
    make_optimizer(make_recipe(config)),
    ema=config.ema_decay > 0,
  )
  return jax.jit(init, out_shardings=replicated(mesh))()


def _compiled(config, mesh):
  """Returns the update's program and its arguments."""
  state = _state(config, mesh)
  batch = jax.device_put(_batch(), batch_sharding(mesh))
  return (
    make_train_step(make_recipe(config), mesh).lower(state, batch).compile(),
    state,
    batch,
  )


def _assert_close(tree, other):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=0, atol=1e-5 * np.abs(y).max()
    ),
    tree,
    other,
  )


@pytest.mark.slow
def test_parts_of_a_batch_make_the_update_of_the_whole():
  mesh = make_mesh(jax.devices()[:1])
  whole, state, batch = _compiled(_config(), mesh)
  want = whole(state, batch)
  for parts in (2, 16):
    step, state, batch = _compiled(_config(accumulate_steps=parts), mesh)
    found = step(state, batch)
    _assert_close(found[1], want[1])
    _assert_close(found[0].params, want[0].params)
    _assert_close(found[0].opt_state, want[0].opt_state)
    # Alive: what is kept for the gradient is that of a part.
    memory, most = (
      s.memory_analysis().temp_size_in_bytes for s in (step, whole)
    )
    assert memory < 0.8 * most


@pytest.mark.slow
@pytest.mark.usefixtures('eight_devices')
def test_parts_of_a_batch_stay_on_their_devices():
  step, *_ = _compiled(_config(accumulate_steps=2), make_mesh())
  exchanges = Program(step.as_text(), 8).collectives()
  assert {exchange.kind for exchange in exchanges} == {'all-reduce'}


@pytest.mark.slow
def test_the_average_follows_the_weights():
  mesh = make_mesh(jax.devices()[:1])
  step, state, batch = _compiled(_config(ema_decay=0.75), mesh)
  average = jax.tree.map(np.array, state.params)
  jax.tree.map(np.testing.assert_array_equal, state.ema_params, average)
  assert state.eval_params is state.ema_params
  for _ in range(3):
    state, _ = step(state, batch)
    average = jax.tree.map(
      lambda mean, new: 0.75 * mean + 0.25 * np.asarray(new),
      average,
      state.params,
    )
  _assert_close(state.ema_params, average)
  moved = jax.tree.map(
    lambda x, y: float(jnp.abs(x - y).max()), state.params, state.ema_params
  )
  assert max(jax.tree.leaves(moved)) > 1e-3


def test_without_a_decay_there_is_no_average():
  mesh = make_mesh(jax.devices()[:1])
  step, state, batch = _compiled(_config(), mesh)
  state, _ = step(state, batch)
  assert state.ema_params is None
  assert state.eval_params is state.params


def test_gray_levels_are_those_of_numpy():
  levels = np.arange(256, dtype=np.uint8)
  found = np.asarray(jax.jit(as_float)(levels))
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, levels.astype(np.float32) / 255)
  divided = np.asarray(jax.jit(lambda x: x / jnp.float32(255))(levels))
  assert (divided != found).sum() > 100  # which is why there is a table


def test_gray_levels_train_as_floats_do():
  mesh = make_mesh(jax.devices()[:1], space=1)
  config = _config()
  step = make_train_step(make_recipe(config), mesh)
  levels = _levels(4, 16)
  floats = {side: x.astype(np.float32) / 255 for side, x in levels.items()}
  found = [
    jax.tree.map(np.asarray, step(_state(config, mesh), batch))
    for batch in (levels, floats)
  ]
  jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.slow
@pytest.mark.usefixtures('eight_devices')
def test_every_shape_that_is_to_come_is_compiled_ahead(caplog):
  caplog.set_level('INFO', 'absl')
  mesh = make_mesh(jax.devices()[:2], space=1)
  config = _config(num_train_steps=9, growth=((3, 16, 4), (6, 20, 2)))
  config.schedule.boundaries = ()
  state = _state(config, mesh).replace(
    step=jax.device_put(jnp.int32(3), replicated(mesh))
  )
  step = make_train_step(make_recipe(config), mesh)
  ahead = compile_ahead(step, state, config, mesh)
  told = [r.getMessage() for r in caplog.records if 'Compiling' in r.msg]
  assert told == [
    'Compiling the update of 4 crops of 16 pixels (1 of 2)',
    'Compiling the update of 2 crops of 20 pixels (2 of 2)',
  ]
  for size, crop in ((4, 16), (2, 20)):
    batch = jax.device_put(_levels(size, crop), batch_sharding(mesh))
    state, scalars = ahead(state, batch)
    assert np.isfinite(scalars['loss'])
  assert state.step == 5
  with pytest.raises(KeyError):  # of a stage that is over
    ahead(state, jax.device_put(_levels(), batch_sharding(mesh)))
