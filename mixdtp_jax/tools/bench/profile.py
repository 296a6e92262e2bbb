"""bench profile: where the time of a restored image and of an update goes.

The compiled programs run as they always do, and a trace tells when each of
their operations ran. The time of an operation counts for its kind, and for the
module of the network whose name XLA kept with it.
"""

import collections
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np

from mixdtp_jax.measure import timed, trace
from mixdtp_jax.measure.flops import count_flops
from mixdtp_jax.measure.roofline import Roofline, measure_roofline
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.runtime.tables import Table, show
from mixdtp_jax.tools.bench.case import (
  Case,
  draw_batch,
  draw_params,
  parse_number,
)
from mixdtp_jax.tools.plan import hlo
from mixdtp_jax.tools.plan.program import Program
from mixdtp_jax.tools.plan.step import abstract_state
from mixdtp_jax.training.step import make_train_step

# Named scopes of an update, beside the modules of the network.
_SCOPES = ('loss', 'optimizer')
# A fusion counts as the first of these that it contains.
_HEAVY = (
  'convolution', 'dot', 'sort', 'scatter', 'gather', 'reduce-window', 'reduce',
)  # fmt: skip
_MOVES = {
  'broadcast', 'concatenate', 'convert', 'copy', 'dynamic-slice',
  'dynamic-update-slice', 'pad', 'reverse', 'slice', 'transpose',
}  # fmt: skip
# These compute nothing.
_NAMES = {
  'bitcast', 'constant', 'get-tuple-element', 'iota', 'parameter', 'reshape',
  'tuple',
}  # fmt: skip
# These wait for the operations that they run.
_WAITING = {'call', 'conditional', 'while'}


class Operation(NamedTuple):
  """What an instruction of a compiled program does."""

  # Such as convolution or elementwise, or the name of a library's function, or
  # of a kernel or copy that is no instruction of the program.
  kind: str
  module: str  # path of the Flax module or named scope; '' if unknown
  backward: bool  # whether it computes gradients


class Profile(NamedTuple):
  """Times of one program, in seconds."""

  untraced: list[float]  # of runs without a trace
  seconds: float  # of the traced run, that of median time
  # In which each operation ran, none counted twice, and how often it ran.
  operations: dict[Operation, tuple[float, int]]
  flops: int  # of its products; see `count_flops`
  traffic: int  # bytes; see `Program.memory_traffic`

  @property
  def idle(self) -> float:
    """Seconds of the traced run in which no operation ran."""
    return self.seconds - sum(time for time, _ in self.operations.values())


def bench_profile(
  case: Case, *, crop: int, batch: str, repeats: int
) -> dict[str, Any]:
  """Measures the machine, and traces inference and an update."""
  recipe, cfg = case.recipe, case.recipe.model
  case.check_crop(crop)
  count = parse_number('batch', batch)
  machine = case.announce(f'profile, {batch} x {crop}x{crop} pixels')
  roofline = measure_roofline()
  rates = ', '.join(
    f'{k} {max(v) / 1e9:,.0f} GFLOP/s' for k, v in roofline.flops.items()
  )
  copied = f'{max(roofline.bytes) / 1e9:,.1f} GB/s'
  show(f'Products: {rates}. Read and written: {copied}.')
  params = draw_params(cfg, recipe.seed)
  images = draw_batch(count, crop, crop, recipe.seed)
  mesh = make_mesh(jax.devices()[:1])
  paths = flax.traverse_util.flatten_dict(params)
  scopes = {*_SCOPES, *(name for path in paths for name in path[:-1])}
  rainy, state = images['rainy'], abstract_state(recipe, mesh)
  inference = timed.make_inference(cfg, params, rainy, mesh, recipe.kernels)
  flops = count_flops(final_image(cfg), params, rainy)
  found = {'inference': profile(inference, flops, scopes, repeats)}
  update = timed.make_training(recipe, params, images, mesh)
  flops = count_flops(make_train_step(recipe, mesh), state, images)
  found['update'] = profile(update, flops, scopes, repeats)
  for name, program in found.items():
    show(*_tables(name, program, roofline, cfg.dtype))
  programs = {name: _content(program) for name, program in found.items()}
  sizes = {'crop': crop, 'batch': count, 'roofline': roofline._asdict()}
  return {'machine': machine} | sizes | {'programs': programs}


def profile(
  computation: timed.Timed, flops: int, scopes: Collection[str], repeats: int
) -> Profile:
  """Times runs of a computation of JAX, without a trace and again with it.

  `flops` are those of its products, `scopes` names of modules and named scopes.
  """
  text = (computation.program and computation.program.as_text()) or ''
  known = read_operations(text, scopes)
  untraced = [seconds(computation.run)[0] for _ in range(repeats)]
  run = sorted(trace.record(computation.run, repeats))[repeats // 2]
  waiting = {name for name, op in known.items() if op.kind in _WAITING}
  times: dict[Operation, float] = collections.defaultdict(float)
  for name, time in trace.shares(run.spans, waiting).items():
    times[_find(name, known)] += time
  counts = collections.Counter(_find(span.name, known) for span in run.spans)
  ordered = sorted(times.items(), key=lambda item: -item[1])
  operations = {op: (time, counts[op]) for op, time in ordered}
  traffic = Program(text, 1).memory_traffic()
  return Profile(untraced, run.seconds, operations, flops, traffic)


def _find(name: str, operations: dict[str, Operation]) -> Operation:
  """Returns the operation of an instruction, or of its kernel on a GPU."""
  instruction = re.sub(r'_(\d+)$', r'.\1', name)  # a kernel's name has no dot
  nothing = Operation(name, '', backward=False)
  return operations.get(name) or operations.get(instruction, nothing)


def read_operations(text: str, scopes: Collection[str]) -> dict[str, Operation]:
  """Returns the operation of each instruction of a compiled program."""
  computations, _ = hlo.read(text)
  operations = {}
  for computation in computations.values():
    for instruction in computation.values():
      traced = re.search(r'op_name="([^"]*)"', instruction.attributes)
      words = re.findall(r'\w+', traced[1]) if traced else []
      operations[instruction.name] = Operation(
        _kind(instruction, computations),
        '/'.join(word for word in words if word in scopes),
        traced is not None and 'transpose(' in traced[1],
      )
  return operations


def _kind(instruction: hlo.Instruction, computations) -> str:
  kinds, target = {instruction.kind}, r'custom_call_target="([^"]*)"'
  if library := re.search(target, instruction.attributes):
    return library[1]
  if instruction.kind == 'fusion':
    body = computations[instruction.called[0]]
    kinds = {inner.kind for inner in body.values()}
  for kind in _HEAVY:
    if kind in kinds:
      return kind
  if kinds <= _MOVES | _NAMES:
    return 'copy'
  return kinds.pop() if kinds <= _WAITING else 'elementwise'


def _tables(
  name: str, found: Profile, roofline: Roofline, dtype: str
) -> list[Table | str]:
  """Returns the times of a program by kind of operation and by module."""
  untraced = float(np.median(found.untraced))
  products = found.flops / max(roofline.flops[dtype])
  memory = found.traffic / max(roofline.bytes)
  return [
    _table(f'{name}, by operation', found, lambda op: op.kind),
    # With * for a number in the name of a module.
    _table(
      f'{name}, by module',
      found,
      lambda op: re.sub(r'\d+(_\d+)?', '*', op.module) or 'no module',
    ),
    f'{name}: {_ms(untraced)} ms without the trace, median. At the rates '
    f'above, {found.flops / 1e9:,.1f} GFLOP of products take {_ms(products)} '
    f'ms, and {found.traffic / 1e9:,.2f} GB of reads and writes {_ms(memory)} '
    'ms if no cache serves them.',
  ]


def _table(
  title: str, found: Profile, group: Callable[[Operation], str]
) -> Table:
  """Sums times by group; groups below 1 % of the run share a row."""
  groups: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(3))
  for operation, (time, runs) in found.operations.items():
    groups[group(operation)] += time, time * operation.backward, runs
  rows = sorted(groups.items(), key=lambda row: -row[1][0])
  count = sum(time >= 0.01 * found.seconds for _, (time, *_) in rows)
  times = np.array([numbers for _, numbers in rows]).reshape(-1, 3)
  rows[count:] = [
    (f'{len(rows) - count} others', times[count:].sum(0)),
    ('busy', times.sum(0)),
    ('idle', np.array([found.idle, 0, 0])),
    ('run', np.array([found.seconds, 0, 0])),
  ]
  cells = [
    (
      name,
      _ms(time),
      f'{100 * time / found.seconds:.1f}',
      _ms(backward) if backward else None,
      f'{runs:.0f}' if runs else None,
    )
    for name, (time, backward, runs) in rows
  ]
  return Table(title, ('', 'ms', '%', 'backward ms', 'times'), cells)


def _ms(time: float) -> str:
  return f'{1e3 * time:,.2f}'


def _content(found: Profile) -> dict[str, Any]:
  operations = [
    operation._asdict() | {'seconds': time, 'times': runs}
    for operation, (time, runs) in found.operations.items()
  ]
  return found._asdict() | {'idle': found.idle, 'operations': operations}
