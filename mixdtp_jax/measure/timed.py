"""Restoring images and training in JAX, ready to be timed: compiled and run."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.measure import memory
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.mesh import batch_sharding, place, replicated
from mixdtp_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a computation costs beside the time of its warm runs; in seconds.

  Attributes:
    batch: images of a run.
    lower: JAX's tracing and lowering; 0 in PyTorch.
    compile: XLA's compilation; 0 in PyTorch.
    first: the first run; in PyTorch with all preparation and compilation.
    memory: peak of a warm run, beyond what is held between runs.
  """

  batch: int
  lower: float
  compile: float
  first: float
  memory: memory.Peak


class Timed(NamedTuple):
  """A computation that has run.

  Attributes:
    run: runs it again, and returns when the device is done.
    cost: of its start and its memory.
    program: the compiled program; None in PyTorch.
  """

  run: Callable[[], Any]
  cost: Cost
  program: jax.stages.Compiled | None = None


def make_inference(
  cfg: AnyConfig, params: dict, rainy: np.ndarray, mesh: jax.sharding.Mesh
) -> Timed:
  """Prepares restoring rainy images (B, H, W, 3); they stay on the devices.

  Args:
    cfg: of the network.
    params: its parameters.
    rainy: float32 in [0, 1]. The network's multiple divides H and W, and the
      number of devices divides B.
    mesh: the devices that share the images.
  """
  arguments = (
    place(params, replicated(mesh)),
    place(rainy, batch_sharding(mesh)),
  )
  compiled = _compile(jax.jit(final_image(cfg)), *arguments)
  program = compiled[0]

  def run():
    return jax.block_until_ready(program(*arguments))

  return _first_run(run, len(rainy), *compiled)


def initial_state(
  config: ml_collections.ConfigDict, params: dict
) -> TrainState:
  """Returns the state at step 0 of a training that starts from `params`."""
  # Copies: a step consumes its state, and the parameters are needed again.
  params = jax.tree.map(jnp.array, params)
  opt_state = make_optimizer(config).init(params)
  return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


class Trainer:
  """Training in JAX by a compiled step, from given parameters."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    params: dict,
    mesh: jax.sharding.Mesh,
  ):
    """Starts at step 0; `compile_step` must be called before `step`.

    Args:
      config: the recipe.
      params: of its network; they stay as they are.
      mesh: the devices that share each batch.
    """
    state = initial_state(config, params)
    self.state = jax.device_put(state, replicated(mesh))
    self._config, self._mesh = config, mesh

  def place(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Returns the batch on the devices."""
    return place(batch, batch_sharding(self._mesh))

  def compile_step(
    self, batch: dict[str, jax.Array]
  ) -> tuple[jax.stages.Compiled, float, float]:
    """Compiles the step for batches of this shape.

    Returns:
      The program, and the seconds of lowering and of compiling it.
    """
    step = make_train_step(self._config, self._mesh)
    compiled = _compile(step, self.state, batch)
    self._program = compiled[0]
    return compiled

  def step(self, batch: dict[str, jax.Array]) -> float:
    """Makes one update; returns the loss before it when all is done."""
    self.state, scalars = self._program(self.state, batch)
    jax.block_until_ready(self.state)
    return float(scalars['loss'])


def make_training(
  config: ml_collections.ConfigDict,
  params: dict,
  batch: dict[str, np.ndarray],
  mesh: jax.sharding.Mesh,
) -> Timed:
  """Prepares updates on one batch {'rainy', 'clean'} (B, H, W, 3).

  Args:
    config: the recipe: loss, optimizer, and the rates of the first updates.
    params: of its network; they stay as they are.
    batch: float32 in [0, 1].
    mesh: the devices that share it.
  """
  trainer = Trainer(config, params, mesh)
  placed = trainer.place(batch)
  compiled = trainer.compile_step(placed)
  return _first_run(
    lambda: trainer.step(placed), len(batch['rainy']), *compiled
  )


def _compile(jitted, *arguments) -> tuple[jax.stages.Compiled, float, float]:
  lower, lowered = seconds(lambda: jitted.lower(*arguments))
  compile_, program = seconds(lowered.compile)
  return program, lower, compile_


def _first_run(run, batch, program, lower, compile_) -> Timed:
  first = seconds(run)[0]
  if jax.devices()[0].platform == 'cpu':
    peak = memory.peak_of_process(run)
  else:
    peak = memory.planned(program)
  return Timed(run, Cost(batch, lower, compile_, first, peak), program)
