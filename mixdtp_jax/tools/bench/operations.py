"""What the operations of a compiled program do, and for which module."""

import re
from collections.abc import Collection
from typing import NamedTuple

from mixdtp_jax.tools.plan import hlo

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
WAITING = {'call', 'conditional', 'while'}


class Operation(NamedTuple):
  """What an instruction of a compiled program does."""

  # Such as convolution or elementwise, or the name of a library's function, or
  # of a kernel or copy that is no instruction of the program.
  kind: str
  module: str  # path of the Flax module or named scope; '' if unknown
  backward: bool  # whether it computes gradients


def find(name: str, operations: dict[str, Operation]) -> Operation:
  """Returns the operation of an instruction, or of its kernel on a GPU."""
  instruction = re.sub(r'_(\d+)$', r'.\1', name)  # a kernel's name has no dot
  nothing = Operation(name, '', backward=False)
  return operations.get(name) or operations.get(instruction, nothing)


def read_operations(text: str, scopes: Collection[str]) -> dict[str, Operation]:
  """Returns the operation of each instruction, by its name.

  Args:
    text: of the compiled program.
    scopes: names of modules and named scopes.
  """
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
  kinds = {instruction.kind}
  if target := re.search(
    r'custom_call_target="([^"]*)"', instruction.attributes
  ):
    return target[1]
  if instruction.kind == 'fusion':
    body = computations[instruction.called[0]]
    kinds = {inner.kind for inner in body.values()}
  for kind in _HEAVY:
    if kind in kinds:
      return kind
  if kinds <= _MOVES | _NAMES:
    return 'copy'
  return kinds.pop() if kinds <= WAITING else 'elementwise'
