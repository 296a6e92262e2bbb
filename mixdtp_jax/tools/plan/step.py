"""One training step, compiled for its target, and the largest batch of it."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from absl import logging

from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.measure.flops import count_flops
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.recipe.crop_schedule import Stage, check_split
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.console import waiting
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.tools.plan.program import Collective, Program
from mixdtp_jax.tools.plan.targets import Target, out_of_memory
from mixdtp_jax.training.step import abstract_batch, init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device during a step, as XLA states them."""

  arguments: int  # the state, which is replaced in place, and the batch
  temporaries: int  # values for the gradient, and all other intermediate ones
  other: int  # results that replace no argument, and the program itself


@dataclasses.dataclass(frozen=True)
class Times:
  """A model of the seconds of a step; None if unknown."""

  products: float  # its operations, at the part of the peak rate reached
  memory: float | None  # its traffic at the full bandwidth
  exchange: float | None  # what a device sends on a ring, by two ports
  # The longer of the first two, and the exchange as if nothing hid it; of a
  # step that did not compile, that of its products.
  step: float


@dataclasses.dataclass(frozen=True)
class StepPlan:
  """What a step needs.

  If the compiler ran out of memory, the fields from `memory` on are unknown.
  """

  batch_size: int  # images, over all devices
  crop: int  # side of the crops in pixels
  remat: str  # the option model.remat
  compile_seconds: float  # of tracing and compiling
  # Bytes of one device. If the compiler gave up, what it named, which may be
  # only a part; None if it named nothing.
  needed: int | None
  available: int  # bytes of one device that a program may use
  fits: bool  # whether it was compiled and has room
  flops: float  # of a step and device; see `count_flops`
  seconds: Times
  memory: Memory | None = None  # parts of those needed
  collectives: tuple[Collective, ...] = ()  # exchanges between devices
  sent_bytes: float = 0  # that a device sends to others in a step, on a ring
  traffic: int | None = None  # bytes of a step; see `Program.memory_traffic`
  unknown_loops: int = 0  # which count once in those three
  # 'bytes accessed' of XLA's cost_analysis(), which counts each loop's body
  # once, and memory beside the compute units too.
  xla_bytes: float | None = None


def plan_step(
  recipe: Recipe, stage: Stage, target: Target, utilisation: float
) -> StepPlan:
  """Compiles the training step for a stage's batches; nothing is computed.

  `utilisation` is the part of the peak rate that products reach. ValueError if
  the devices cannot share a batch.
  """
  mesh = make_mesh(target.devices, space=recipe.mesh_space)
  check_split(stage, recipe, mesh)
  step = make_train_step(recipe, mesh)
  batch = abstract_batch(stage.batch_size, stage.crop, mesh)
  arguments = abstract_state(recipe, mesh), batch
  flops = count_flops(step, *arguments) / len(target.devices)
  remat = recipe.model.remat
  what = (
    f'Compiling the step of {stage.batch_size} crops of {stage.crop} pixels, '
    f'remat {remat}'
  )
  logging.info(what)
  found: dict[str, Any] = {'fits': False}
  compiled = None
  start = time.perf_counter()
  try:
    with waiting(what):
      compiled = step.lower(*arguments).compile(dict(target.compiler_options))
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    found['needed'] = out_of_memory(error).get('needed')
  took = time.perf_counter() - start
  if compiled is not None:
    found = _read(compiled, target)
  return StepPlan(
    stage.batch_size,
    stage.crop,
    remat,
    took,
    available=target.memory,
    flops=flops,
    seconds=_times(flops / (target.peak * utilisation), found, target),
    **found,
  )


def _read(compiled: jax.stages.Compiled, target: Target) -> dict[str, Any]:
  """Returns fields of a StepPlan."""
  program = Program(compiled.as_text() or '', len(target.devices))
  plan: Any = compiled.memory_analysis()
  made = plan.output_size_in_bytes - plan.alias_size_in_bytes
  memory = Memory(
    plan.argument_size_in_bytes,
    plan.temp_size_in_bytes,
    made + plan.generated_code_size_in_bytes,
  )
  needed = memory.arguments + memory.temporaries + memory.other
  collectives = program.collectives()
  return {
    'needed': needed,
    'fits': needed <= target.memory,
    'memory': memory,
    'collectives': tuple(collectives),
    'sent_bytes': sum(c.sent_bytes for c in collectives),
    'traffic': program.memory_traffic(),
    'unknown_loops': program.unknown_loops,
    'xla_bytes': (compiled.cost_analysis() or {}).get('bytes accessed'),
  }


def _times(products: float, found: dict[str, Any], target: Target) -> Times:
  memory = exchange = None
  if target.bandwidth is not None and 'traffic' in found:
    memory = found['traffic'] / target.bandwidth
  if target.ring is not None:
    exchange = found.get('sent_bytes', 0) / target.ring
  step = max(products, memory or 0) + (exchange or 0)
  return Times(products, memory, exchange, step)


def abstract_state(recipe: Recipe, mesh: jax.sharding.Mesh) -> TrainState:
  """Returns shapes and dtypes of the state that a run starts from."""
  network, optimizer = make_network(recipe.model), make_optimizer(recipe)
  average = recipe.ema_decay > 0
  shapes = jax.eval_shape(
    lambda: init_state(recipe.seed, network, optimizer, ema=average)
  )
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)),
    shapes,
  )


class Search(NamedTuple):
  """What a search found."""

  best: StepPlan | None  # of the largest batch that fits
  tried: list[StepPlan]  # from the smallest batch to the largest


def largest_batch(
  plan: Callable[[int], StepPlan],
  unit: int,
  *,
  known: StepPlan | None = None,
  start: int = 1,
  compiles: int = 6,
) -> Search:
  """Searches the largest batch whose step fits, a multiple of `unit`.

  Memory grows with the batch nearly along a line. What the line through two
  plans predicts is compiled and gives the next line, until the answer is known
  to one unit or to a sixteenth; it may be too small after `compiles` plans.
  The first plan is the known one, or else that of `start` units.
  """
  plans = {} if known is None else {known.batch_size // unit: known}
  for _ in range(compiles):
    units = next_to_try(plans) if plans else start
    if units is None:
      break
    plans[units] = plan(units * unit)
  tried = [plans[units] for units in sorted(plans)]
  fitting = [found for found in tried if found.fits]
  return Search(fitting[-1] if fitting else None, tried)


def next_to_try(plans: Mapping[int, StepPlan]) -> int | None:
  """Returns the batch to plan next, in units; None if enough is known.

  `plans` has at least one, by batch in units.
  """
  low = max((n for n, found in plans.items() if found.fits), default=0)
  high = min((n for n, found in plans.items() if not found.fits), default=None)
  if high is not None and high - low <= max(1, low // 16):
    return None
  guess = _crossing(plans)
  if guess is None:
    guess = high // 2 if high and not low else 2 * low
  guess = max(guess, low + 1)
  # A line through two small batches leads too far to be trusted.
  return min(guess, 8 * max(low, 1) if high is None else high - 1)


def _crossing(plans: Mapping[int, StepPlan]) -> int | None:
  """Returns the last batch that fits, by a line through the nearest plans."""
  excess = {
    n: found.needed - found.available
    for n, found in plans.items()
    if found.needed is not None
  }
  if len(excess) == 1:
    # No images would need the state alone.
    for found in plans.values():
      if (memory := found.memory) is not None:
        excess[0] = memory.arguments + memory.other - found.available
  if len(excess) < 2:
    return None
  one, two = sorted(sorted(excess, key=lambda n: abs(excess[n]))[:2])
  slope = (excess[two] - excess[one]) / (two - one)
  return math.floor(one - excess[one] / slope) if slope > 0 else None
