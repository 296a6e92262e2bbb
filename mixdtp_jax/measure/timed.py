"""Restoring images and training in JAX, ready to be timed: compiled and run."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.measure import memory
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.ops import choice
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.mesh import batch_sharding, place, replicated
from mixdtp_jax.training.step import make_train_step

Batch = dict[str, np.ndarray]  # 'rainy' and 'clean': (B, H, W, 3) in [0, 1]
# A program, the seconds of tracing and lowering it, and those of compiling it.
_Compiled = tuple[jax.stages.Compiled, float, float]


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a computation costs beside the time of its warm runs; in seconds."""

  batch: int  # images of a run
  lower: float  # JAX's tracing and lowering; 0 in PyTorch
  compile: float  # XLA's compilation; 0 in PyTorch
  first: float  # run; in PyTorch with all preparation and compilation
  memory: memory.Peak  # of a warm run, beyond what is held between runs


class Timed(NamedTuple):
  """A computation that has run."""

  run: Callable[[], Any]  # runs it again, and returns when the device is done
  cost: Cost
  program: jax.stages.Compiled | None = None  # None in PyTorch


def make_inference(
  cfg: AnyConfig,
  params: dict,
  rainy: np.ndarray,
  mesh: jax.sharding.Mesh,
  kernels: str = 'auto',
) -> Timed:
  """Prepares restoring rainy images (B, H, W, 3); they stay on the devices.

  The network's multiple divides H and W, the number of devices of `mesh` B.
  `kernels` is the option of a recipe.
  """
  chosen = choice.resolve(kernels, list(mesh.devices.flat))
  params = place(params, replicated(mesh))
  images = place(rainy, batch_sharding(mesh))
  restore = choice.traced_with(chosen, final_image(cfg))
  compiled = _compile(jax.jit(restore), params, images)

  def run() -> None:
    jax.block_until_ready(compiled[0](params, images))

  return _first_run(run, len(rainy), compiled)


class Trainer:
  """Training in JAX from given parameters, with batches of one shape."""

  def __init__(
    self, config: Recipe, params: dict, mesh: jax.sharding.Mesh, batch: Batch
  ):
    # Copies: a step consumes its state, and the parameters are needed again.
    params = jax.tree.map(jnp.array, params)
    opt_state = make_optimizer(config).init(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, opt_state)
    self.state = jax.device_put(state, replicated(mesh))
    placed = place(batch, batch_sharding(mesh))
    self.compiled = _compile(make_train_step(config, mesh), self.state, placed)

  def step(self, batch: dict[str, jax.Array]) -> float:
    """Makes one update; returns the loss before it when all is done."""
    self.state, scalars = self.compiled[0](self.state, batch)
    jax.block_until_ready(self.state)
    return float(scalars['loss'])


def make_training(
  config: Recipe, params: dict, batch: Batch, mesh: jax.sharding.Mesh
) -> Timed:
  """Prepares updates on one batch; see `Trainer`."""
  trainer = Trainer(config, params, mesh, batch)
  placed, size = place(batch, batch_sharding(mesh)), len(batch['rainy'])
  return _first_run(lambda: trainer.step(placed), size, trainer.compiled)


def _compile(jitted: Any, *arguments: Any) -> _Compiled:
  lower, lowered = seconds(lambda: jitted.lower(*arguments))
  compile_, program = seconds(lowered.compile)
  return program, lower, compile_


def _first_run(
  run: Callable[[], Any], batch: int, compiled: _Compiled
) -> Timed:
  program, lower, compile_ = compiled
  first = seconds(run)[0]
  if jax.devices()[0].platform == 'cpu':
    peak = memory.peak_of_process(run)
  else:
    peak = memory.planned(program)
  return Timed(run, Cost(batch, lower, compile_, first, peak), program)
