"""One update of training: a pure function of state and batch."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.models.factory import Network, make_network
from mixdtp_jax.models.mixdtp import Outputs
from mixdtp_jax.ops import choice
from mixdtp_jax.recipe.crop_schedule import stages
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.losses import make_loss
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.recipe.schedules import make_schedule
from mixdtp_jax.runtime.mesh import batch_sharding, replicated, traced_for

Batch = dict[str, jax.Array]
Scalars = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Scalars]]
LossFn = Callable[[Outputs, jax.Array], tuple[jax.Array, Scalars]]

_LEVELS = np.arange(256, dtype=np.float32) / 255


def init_state(
  seed: int,
  network: Network,
  optimizer: optax.GradientTransformation,
  *,
  ema: bool = False,
) -> TrainState:
  """Makes a state at update 0, whose weights depend only on the seed.

  With `ema`, their moving average starts equal to them.
  """
  multiple = network.cfg.multiple
  image = jnp.zeros((1, multiple, multiple, 3))
  params = network.init(jax.random.key(seed), image)['params']
  return TrainState(
    jnp.zeros((), jnp.int32),
    params,
    optimizer.init(params),
    params if ema else None,
  )


def loss_and_gradients(
  params: dict, batch: Batch, *, network: Network, loss: LossFn
) -> tuple[Scalars, dict]:
  """Computes scalars and gradients of a batch, as means over images.

  The batch is {'rainy', 'clean'}: (B, H, W, 3), uint8, or float32 in [0, 1].
  The float32 scalars are the loss, its terms, and psnr.
  """
  batch = jax.tree.map(as_float, batch)

  def loss_fn(params):
    outputs = network.apply({'params': params}, batch['rainy'])
    assert isinstance(outputs, Outputs)
    with jax.named_scope('loss'):
      total, terms = loss(outputs, batch['clean'])
    return total, (outputs.final, terms)

  (total, (final, terms)), gradients = jax.value_and_grad(
    loss_fn, has_aux=True
  )(params)
  error = jnp.square(jnp.clip(final, 0, 1) - batch['clean']).mean((1, 2, 3))
  # Identical images have an infinite PSNR, which counts as 100 dB.
  psnr = -10 * jnp.log10(jnp.maximum(error, 1e-10)).mean()
  scalars = {'loss': total, 'psnr': psnr}
  return scalars | {f'loss_{k}': v for k, v in terms.items()}, gradients


def as_float(images: jax.Array) -> jax.Array:
  """Returns uint8 images as float32 in [0, 1], and float32 ones as they are.

  A table gives NumPy's values of k / 255. XLA multiplies by the reciprocal
  instead of dividing, which gives others.
  """
  if images.dtype != jnp.uint8:
    return images
  return jnp.take(_LEVELS, images, mode='clip')


def accumulate(function: Callable, parts: int) -> Callable:
  """Makes a function's mean over equal parts of a batch, in sequence.

  For a function of (parameters, batch) that is a mean over images, that is the
  value for the whole batch, with the memory of a part. `parts` divides each
  device's share of a batch.
  """
  if parts == 1:
    return function

  def mean(params, batch):
    # Each part takes every parts-th image, so no image changes its device.
    split = jax.tree.map(
      lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def add(total, part):
      return jax.tree.map(jnp.add, total, function(params, part)), None

    first = jax.tree.map(lambda x: x[0], split)
    zeros = jax.tree.map(
      jnp.zeros_like, jax.eval_shape(function, params, first)
    )
    total, _ = jax.lax.scan(add, zeros, split)
    return jax.tree.map(lambda x: x / parts, total)

  return mean


@jax.named_scope('optimizer')
def apply_gradients(
  state: TrainState,
  gradients: dict,
  *,
  optimizer: optax.GradientTransformation,
  ema_decay: float,
) -> TrainState:
  """Updates the parameters, and their average if the state has one."""
  updates, opt_state = optimizer.update(
    gradients, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  average = state.ema_params
  if average is not None:
    average = jax.tree.map(
      lambda mean, new: ema_decay * mean + (1 - ema_decay) * new,
      average,
      params,
    )
  return TrainState(state.step + 1, params, opt_state, average)


def make_train_step(
  config: Recipe, mesh: jax.sharding.Mesh
) -> jax.stages.Wrapped:
  """Makes the jitted update of a configuration, which consumes its state.

  It is a pure function of state and batch, and returns the next state and
  float32 scalars: loss, its terms before weighting, psnr (rgb, of the batch's
  final images), learning_rate, and grad_norm, the global norm before clipping.
  """
  network, loss = make_network(config.model), make_loss(config.loss)
  optimizer, schedule = make_optimizer(config), make_schedule(config)
  of_part = functools.partial(loss_and_gradients, network=network, loss=loss)
  of_batch = accumulate(of_part, config.accumulate_steps)

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
    scalars, gradients = of_batch(state.params, batch)
    scalars['learning_rate'] = jnp.asarray(schedule(state.step), jnp.float32)
    scalars['grad_norm'] = optax.tree.norm(gradients)
    state = apply_gradients(
      state, gradients, optimizer=optimizer, ema_decay=config.ema_decay
    )
    return state, scalars

  kernels = choice.resolve(config.kernels, list(mesh.devices.flat))
  step = choice.traced_with(kernels, traced_for(mesh, train_step))
  return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))


def compile_ahead(
  step: jax.stages.Wrapped,
  state: TrainState,
  config: Recipe,
  mesh: jax.sharding.Mesh,
) -> Step:
  """Compiles the step for every shape of batch that is left to a run's state.

  So no update waits for the compiler. The devices of `mesh` share each batch.
  """
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  left = [s for s in stages(config) if s.end > int(state.step)]
  compiled = {}
  for number, stage in enumerate(left, 1):
    logging.info(
      'Compiling the update of %d crops of %d pixels (%d of %d)',
      *(stage.batch_size, stage.crop, number, len(left)),
    )
    batch = abstract_batch(stage.batch_size, stage.crop, mesh)
    shape = batch['rainy'].shape
    compiled[shape] = step.lower(abstract, batch).compile()
  return lambda state, batch: compiled[batch['rainy'].shape](state, batch)


def abstract_batch(
  batch_size: int, crop: int, mesh: jax.sharding.Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shapes and dtypes of a batch of square crops, for the compiler."""
  images = jax.ShapeDtypeStruct(
    (batch_size, crop, crop, 3), jnp.uint8, sharding=batch_sharding(mesh)
  )
  return {'rainy': images, 'clean': images}
