"""One training step, compiled for its target and read."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging

from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.measure.flops import count_flops
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.ops.choice import for_other_devices
from mixdtp_jax.recipe.crop_schedule import Stage, check_split
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.console import waiting
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.tools.plan.program import Collective, Program
from mixdtp_jax.tools.plan.targets import Target, out_of_memory
from mixdtp_jax.training.state import init_state
from mixdtp_jax.training.step import abstract_batch, make_train_step


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device during a step, as XLA states them.

  Attributes:
    arguments: the state, which the step replaces in place, and the batch.
    temporaries: values for the gradient, and all other intermediate ones.
    other: results that replace no argument, and the program itself.
  """

  arguments: int
  temporaries: int
  other: int

  @property
  def total(self) -> int:
    """Sum of the three."""
    return self.arguments + self.temporaries + self.other


@dataclasses.dataclass(frozen=True)
class StepPlan:
  """What a step needs.

  If the compiler gave up for want of memory, `memory` is None, and so is all
  that follows it.

  Attributes:
    batch_size: images, over all devices.
    crop: side of the crops in pixels.
    remat: the option model.remat.
    compile_seconds: time of tracing and compiling.
    needed: bytes of one device. If the compiler gave up, what it named, which
      may be only a part; None if it named nothing.
    available: bytes of one device that a program may use.
    flops: operations of a step and device; see `count_flops`.
    memory: parts of those needed.
    collectives: exchanges between devices.
    traffic: bytes of a step from and to a device's memory; see
      `Program.memory_traffic`.
    unknown_loops: loops of unknown length, which count once in those two.
    xla_bytes: 'bytes accessed' of XLA's cost_analysis(), which counts each
      loop's body once, and memory beside the compute units too.
  """

  batch_size: int
  crop: int
  remat: str
  compile_seconds: float
  needed: int | None
  available: int
  flops: float
  memory: Memory | None = None
  collectives: tuple[Collective, ...] = ()
  traffic: int | None = None
  unknown_loops: int = 0
  xla_bytes: float | None = None

  @property
  def fits(self) -> bool:
    """Whether it was compiled and has room."""
    return self.memory is not None and self.needed <= self.available

  @property
  def sent_bytes(self) -> float:
    """Bytes that a device sends to others in a step, on a ring."""
    return sum(collective.sent_bytes for collective in self.collectives)


def plan_step(
  config: ml_collections.ConfigDict, stage: Stage, target: Target
) -> StepPlan:
  """Compiles the training step of a stage; nothing is computed.

  Args:
    config: the recipe.
    stage: gives the shape of the batches.
    target: devices to compile for.

  Raises:
    ValueError: the configuration contradicts itself, the devices cannot share
      a batch, or the network does not take crops of this size.
  """
  mesh = make_mesh(target.devices, space=config.mesh_space)
  check_split(stage, config, mesh)
  cfg = make_model_config(config.model)
  step = make_train_step(config, mesh)
  arguments = (
    abstract_state(config, mesh),
    abstract_batch(stage.batch_size, stage.crop, mesh),
  )
  here = target.devices[0] in jax.devices()
  with _tracing(here):
    flops = count_flops(step, *arguments) / len(target.devices)
  common = {
    'batch_size': stage.batch_size,
    'crop': stage.crop,
    'remat': cfg.remat,
    'available': target.memory,
    'flops': flops,
  }
  what = (
    f'Compiling the step of {stage.batch_size} crops of {stage.crop} pixels, '
    f'remat {cfg.remat}'
  )
  logging.info(what)
  with waiting(what):
    took, found = seconds(
      lambda: _compile(step, arguments, here, target.compiler_options)
    )
  if isinstance(found, jax.errors.JaxRuntimeError):
    needed = out_of_memory(found).get('needed')
    return StepPlan(compile_seconds=took, needed=needed, **common)
  program = Program(found.as_text(), len(target.devices))
  memory = _memory(found)
  return StepPlan(
    compile_seconds=took,
    needed=memory.total,
    memory=memory,
    collectives=tuple(program.collectives()),
    traffic=program.memory_traffic(),
    unknown_loops=program.unknown_loops,
    xla_bytes=(found.cost_analysis() or {}).get('bytes accessed'),
    **common,
  )


def abstract_state(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> TrainState:
  """Returns shapes and dtypes of the state that a run starts from."""
  init = functools.partial(
    init_state,
    config.seed,
    make_network(make_model_config(config.model)),
    make_optimizer(config),
    ema=config.ema_decay > 0,
  )
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)),
    jax.eval_shape(init),
  )


def _tracing(here: bool) -> contextlib.AbstractContextManager:
  return contextlib.nullcontext() if here else for_other_devices()


def _compile(
  step: jax.stages.Wrapped,
  arguments: tuple[Any, ...],
  here: bool,
  options: Mapping[str, bool],
) -> jax.stages.Compiled | jax.errors.JaxRuntimeError:
  """Returns the program, or the error that says that memory is too small."""
  try:
    with _tracing(here):
      return step.lower(*arguments).compile(dict(options))
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return error


def _memory(compiled: jax.stages.Compiled) -> Memory:
  plan = compiled.memory_analysis()
  return Memory(
    plan.argument_size_in_bytes,
    plan.temp_size_in_bytes,
    plan.output_size_in_bytes
    - plan.alias_size_in_bytes
    + plan.generated_code_size_in_bytes,
  )
