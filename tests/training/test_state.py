import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixdtp_jax.configs.default import get_config
from mixdtp_jax.models.config import PReNetConfig
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.recipe.schedules import make_schedule
from mixdtp_jax.training.start import init_state

_STEPS = 6
# One tensor whose gradients are small and one whose are large.
_PARAMS = {'a': np.linspace(-1, 1, 6), 'b': np.ones((2, 3))}


def _config(**changes):
  config = get_config()
  config.num_train_steps = _STEPS
  config.schedule.boundaries = (2, 4)
  config.schedule.learning_rate = 0.1
  for option, value in changes.items():
    config.update_from_flattened_dict({option.replace('__', '.'): value})
  return config


def _gradients(step):
  random = np.random.default_rng(step)
  return {
    'a': 1e-3 * random.standard_normal(6),
    'b': 3 * random.standard_normal((2, 3)),
  }


def _trajectory(config):
  """Returns the parameters after each update."""
  optimizer = make_optimizer(make_recipe(config))
  params = jax.tree.map(jnp.float32, _PARAMS)
  state, path = optimizer.init(params), []
  for step in range(_STEPS):
    gradients = jax.tree.map(jnp.float32, _gradients(step))
    updates, state = optimizer.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
    path.append(params)
  return path


def _rates(config):
  schedule = make_schedule(make_recipe(config))
  return [float(schedule(step)) for step in range(config.num_train_steps)]


def test_steps_fall_at_each_boundary():
  np.testing.assert_allclose(
    _rates(_config()), [0.1, 0.1, 0.02, 0.02, 0.004, 0.004], rtol=1e-6
  )


def test_warmup_comes_first_and_moves_no_boundary():
  rates = _rates(_config(schedule__warmup_steps=2, schedule__boundaries=(3, 5)))
  np.testing.assert_allclose(
    rates, [0, 0.05, 0.1, 0.02, 0.02, 0.004], rtol=1e-6
  )


@pytest.mark.parametrize('warmup', [0, 2])
def test_cosine_goes_from_the_first_update_to_the_last(warmup):
  config = _config(
    schedule__name='cosine',
    schedule__warmup_steps=warmup,
    schedule__final_rate=0.01,
    num_train_steps=11,
  )
  length = 10 - warmup  # updates from the highest rate to the last
  want = [0.1 * step / 2 for step in range(warmup)] + [
    0.01 + 0.09 * (1 + math.cos(math.pi * t / length)) / 2
    for t in range(length + 1)
  ]
  np.testing.assert_allclose(_rates(config), want, rtol=1e-5)
  assert want[-1] == pytest.approx(0.01)


@pytest.mark.torch
@pytest.mark.parametrize('name', ['adam', 'adamw'])
@pytest.mark.parametrize('clip', [0.0, 0.5])
def test_is_pytorchs(name, clip):
  import torch

  config = _config(
    optimizer__name=name,
    optimizer__weight_decay=0.1 if name == 'adamw' else 0.0,
    optimizer__clip_norm=clip,
    optimizer__b1=0.8,
    optimizer__b2=0.95,
    optimizer__eps=1e-4,
  )
  tensors = {
    n: torch.tensor(p, dtype=torch.float32, requires_grad=True)
    for n, p in _PARAMS.items()
  }
  kind = torch.optim.AdamW if name == 'adamw' else torch.optim.Adam
  optimizer = kind(
    tensors.values(),
    betas=(0.8, 0.95),
    eps=1e-4,
    weight_decay=config.optimizer.weight_decay,
  )
  rates = _rates(config)
  for step, params in enumerate(_trajectory(config)):
    gradients = _gradients(step)
    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    scale = min(1, clip / norm) if clip else 1
    for n, tensor in tensors.items():
      tensor.grad = torch.tensor(scale * gradients[n], dtype=torch.float32)
    optimizer.param_groups[0]['lr'] = rates[step]
    optimizer.step()
    for n, tensor in tensors.items():
      np.testing.assert_allclose(
        params[n], tensor.detach().numpy(), rtol=2e-5, atol=2e-6
      )


# Shapes of what Muon takes for matrices, and of what it leaves to Adam.
_KERNELS = {
  'conv': {'kernel': (3, 3, 4, 8)},
  'reduce': {'kernel': (6, 5)},
  'stage': {'blocks': {'project_in': {'kernel': (2, 5, 7)}}},
}
_NO_MATRICES = {
  'conv': {'bias': (8,)},
  'stage': {
    'blocks': {
      'depthwise': {'kernel': (2, 3, 3, 1, 6)},
      'norm': {'scale': (2, 5)},
    }
  },
}


def _first_update(config, shapes):
  """Returns gradients of these shapes, and what is added to the weights."""
  random = np.random.default_rng(0)
  gradients = jax.tree.map(
    lambda shape: jnp.float32(random.standard_normal(shape)),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )
  optimizer = make_optimizer(make_recipe(config))
  params = jax.tree.map(jnp.ones_like, gradients)
  update, _ = optimizer.update(gradients, optimizer.init(params), params)
  return gradients, update


def test_muon_moves_along_all_directions_of_a_matrix_alike():
  config = _config(optimizer__name='muon')
  found = map(jax.tree.leaves, _first_update(config, _KERNELS))
  for gradients, updates in zip(*found, strict=True):
    # One matrix, or one for each block of a stage.
    count = len(gradients) if gradients.ndim == 3 else 1
    shape = count, -1, gradients.shape[-1]
    for g, u in zip(
      gradients.reshape(shape), updates.reshape(shape), strict=True
    ):
      left, _, right = np.linalg.svd(np.float64(g), full_matrices=False)
      turned = left.T @ u @ right.T / (0.1 * 0.2 * max(g.shape) ** 0.5)
      # Newton-Schulz brings the singular values near 1, not to it.
      assert np.all((np.diag(turned) > -1.3) & (np.diag(turned) < -0.6))
      np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-4)


def test_muon_leaves_other_weights_to_adam():
  config = _config(optimizer__name='muon', optimizer__b1=0.8)
  gradients, update = _first_update(config, _NO_MATRICES)
  # Nesterov's form of the first step: both moments without their bias.
  for g, u in zip(*map(jax.tree.leaves, (gradients, update)), strict=True):
    mean = 0.8 * 0.2 * g / (1 - 0.8**2) + 0.2 * g / (1 - 0.8)
    np.testing.assert_allclose(u, -0.1 * mean / np.abs(g), rtol=1e-5)


_ADAMW = {'optimizer__name': 'adamw', 'optimizer__weight_decay': 0.1}
_COSINE = {'schedule__name': 'cosine'}
# option: (what it needs to matter, another value)
_OPTIONS = {
  'optimizer__name': (_ADAMW, 'adam'),
  'optimizer__b1': ({}, 0.5),
  'optimizer__b2': ({}, 0.9),
  'optimizer__eps': ({}, 1e-3),
  'optimizer__weight_decay': (_ADAMW, 0.2),
  'optimizer__clip_norm': ({}, 0.01),
  'schedule__name': ({}, 'cosine'),
  'schedule__learning_rate': ({}, 0.2),
  'schedule__boundaries': ({}, (2, 5)),
  'schedule__factor': ({}, 0.5),
  'schedule__warmup_steps': (_COSINE, 1),
  'schedule__final_rate': (_COSINE, 0.05),
}


def test_every_option_has_its_test():
  config = get_config()
  assert set(_OPTIONS) == {
    f'{section}__{option}'
    for section in ('optimizer', 'schedule')
    for option in config[section]
  }


@pytest.mark.parametrize('option', _OPTIONS)
def test_every_option_changes_the_updates(option):
  needs, value = _OPTIONS[option]
  before = _trajectory(_config(**needs))
  if option == 'optimizer__name':
    with pytest.raises(ValueError, match='weight_decay'):
      make_optimizer(make_recipe(_config(**needs | {option: value})))
    return
  after = _trajectory(_config(**needs | {option: value}))
  assert any(
    np.abs(x - y).max() > 1e-6
    for x, y in zip(
      jax.tree.leaves(before), jax.tree.leaves(after), strict=True
    )
  )


@pytest.mark.slow
def test_fresh_weights_depend_on_the_seed_alone():
  network = make_network(PReNetConfig(recurrent_width=4, steps=1))
  optimizer = make_optimizer(make_recipe(_config()))
  first, again, other = (
    init_state(seed, network, optimizer) for seed in (3, 3, 4)
  )
  assert first.step == 0
  assert first.step.dtype == jnp.int32
  jax.tree.map(np.testing.assert_array_equal, first, again)
  jax.tree.map(
    lambda a, b: np.testing.assert_equal(np.array_equal(a, b), False),
    first.params,
    other.params,
  )
