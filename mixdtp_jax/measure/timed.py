"""Computations that are ready to be timed: compiled, run once, and measured.

Knows JAX; `interop.torch_contenders` has the same ones in PyTorch.
"""

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
  """What a computation costs besides the time of its runs; in seconds.

  Attributes:
    batch: images of a run.
    lower: JAX's tracing and lowering; 0 in PyTorch.
    compile: XLA's compilation of that; 0 in PyTorch.
    first: the first run; whatever PyTorch prepares or compiles is part of it.
    memory: peak of a warm run, beyond what is held between runs.
  """

  batch: int
  lower: float
  compile: float
  first: float
  memory: memory.Peak

  @property
  def start(self) -> float:
    """From the network to its first result."""
    return self.lower + self.compile + self.first


class Contender(NamedTuple):
  """A computation that has run.

  Attributes:
    run: does it again, and returns when the device is done.
    cost: what it took.
  """

  run: Callable[[], Any]
  cost: Cost


class Compiled(NamedTuple):
  """A function of JAX, compiled for some shapes; times in seconds.

  Attributes:
    run: the compiled function.
    lower: time of tracing and lowering.
    compile: time of XLA's compilation of that.
  """

  run: jax.stages.Compiled
  lower: float
  compile: float


def compile_timed(jitted: Any, *arguments: Any) -> Compiled:
  """Compiles a jitted function for its arguments, which stay untouched."""
  lower, lowered = seconds(lambda: jitted.lower(*arguments))
  compile_, compiled = seconds(lowered.compile)
  return Compiled(compiled, lower, compile_)


def make_inference(
  cfg: AnyConfig, params: dict, rainy: np.ndarray, mesh: jax.sharding.Mesh
) -> Contender:
  """Final images from rainy ones (B, H, W, 3), in JAX.

  The rainy images are on the devices before, the final ones stay there.

  Args:
    cfg: of the network.
    params: its parameters.
    rainy: of sides that it takes, as many as the devices divide.
    mesh: the devices that share them.
  """
  arguments = (
    place(params, replicated(mesh)),
    place(rainy, batch_sharding(mesh)),
  )
  compiled = compile_timed(jax.jit(final_image(cfg)), *arguments)
  return _started(
    compiled,
    lambda: jax.block_until_ready(compiled.run(*arguments)),
    len(rainy),
    mesh,
  )


def initial_state(
  config: ml_collections.ConfigDict, params: dict
) -> TrainState:
  """The state at step 0 of a training that starts from parameters."""
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
    run: jax.stages.Compiled | None = None,
  ):
    """Starts at step 0.

    Args:
      config: the recipe.
      params: of its network; they stay as they are.
      mesh: the devices that share each batch.
      run: the step, where it is compiled already; see `compile_step`.
    """
    state = initial_state(config, params)
    self.state = jax.device_put(state, replicated(mesh))
    self._config, self._mesh, self._run = config, mesh, run

  def place(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """The batch on the devices."""
    return place(batch, batch_sharding(self._mesh))

  def compile_step(self, batch: dict[str, jax.Array]) -> Compiled:
    """Compiles the step for batches of this shape, and takes it."""
    jitted = make_train_step(self._config, self._mesh)
    compiled = compile_timed(jitted, self.state, batch)
    self._run = compiled.run
    return compiled

  def step(self, batch: dict[str, jax.Array]) -> float:
    """One update; returns the loss before it, when all is done."""
    self.state, scalars = self._run(self.state, batch)
    jax.block_until_ready(self.state)
    return float(scalars['loss'])


def make_training(
  config: ml_collections.ConfigDict,
  params: dict,
  batch: dict[str, np.ndarray],
  mesh: jax.sharding.Mesh,
) -> tuple[Contender, jax.stages.Compiled]:
  """Updates on one batch {'rainy', 'clean'} (B, H, W, 3), in JAX.

  Args:
    config: the recipe: loss, optimizer, and the rates of the first updates.
    params: of its network; they stay as they are.
    batch: of images.
    mesh: the devices that share it.

  Returns:
    The contender, and the step that it runs, for other states.
  """
  trainer = Trainer(config, params, mesh)
  placed = trainer.place(batch)
  compiled = trainer.compile_step(placed)
  contender = _started(
    compiled, lambda: trainer.step(placed), len(batch['rainy']), mesh
  )
  return contender, compiled.run


def _started(compiled, run, batch, mesh) -> Contender:
  first = seconds(run)[0]
  if mesh.devices.flat[0].platform == 'cpu':
    peak = memory.peak_of_process(run)
  else:
    peak = memory.planned(compiled.run)
  return Contender(
    run, Cost(batch, compiled.lower, compiled.compile, first, peak)
  )
