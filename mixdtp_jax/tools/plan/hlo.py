"""Reads the text of a program that XLA has compiled, `compiled.as_text()`.

It is the program of one device. Each computation comes before those that call
it.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_HEADER = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')
# Types have no word before a bracket, so the first one is the operation.
_INSTRUCTION = re.compile(
  r'\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)'
)
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_TILE = re.compile(r'T\(([\d,]+)\)')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(
  r'(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'(?:branch|called)_computations=\{([^}]*)\}')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Array(NamedTuple):
  """An array in the program."""

  dtype: str  # as XLA names it, such as bf16
  dims: tuple[int, ...]
  layout: str  # in memory, such as 1,0:T(8,128)S(1); '' if not stated

  @property
  def bytes(self) -> int:
    """Size of the values alone."""
    return math.prod(self.dims) * _bits(self.dtype) // 8

  @property
  def stored_bytes(self) -> int:
    """Size with the padding of tiles; a TPU stores tiles such as 8x128."""
    order, _, rest = self.layout.partition(':')
    tile = _TILE.match(rest)
    if not tile or not self.dims:
      return self.bytes
    dims = [self.dims[int(axis)] for axis in order.split(',')]  # minor first
    tiles = [int(size) for size in tile[1].split(',')][::-1]
    dims += [1] * (len(tiles) - len(dims))
    for axis, size in enumerate(tiles):
      dims[axis] = math.ceil(dims[axis] / size) * size
    return math.prod(dims) * _bits(self.dtype) // 8

  @property
  def in_main_memory(self) -> bool:
    """Whether it is not in a memory beside the compute units, such as S(1)."""
    return 'S(' not in self.layout


class Instruction(NamedTuple):
  """One line of the program."""

  name: str  # unique in its computation
  results: tuple[Array, ...]  # several of a tuple
  kind: str  # the operation, such as all-reduce-start
  operands: tuple[str, ...]  # names of instructions, in order
  # The line after its operands; of a parameter or a constant with its number.
  attributes: str
  root: bool  # whether its results are those of its computation

  @property
  def called(self) -> list[str]:
    """Names of the computations that it runs, except a loop's condition."""
    names = _CALLED.findall(self.attributes)
    for listed in _BRANCHES.findall(self.attributes):
      names += re.findall(r'[\w.\-]+', listed)
    return names


Computation = Mapping[str, Instruction]  # by name, in order


def read(text: str) -> tuple[Mapping[str, Computation], str]:
  """Returns computations by name, in the order of the text, and the entry's."""
  computations: dict[str, dict[str, Instruction]] = {}
  entry = current = None
  for line in text.splitlines():
    if header := _HEADER.match(line):
      current = computations[header[2]] = {}
      if header[1]:
        entry = header[2]
    elif line.startswith('}'):
      current = None
    elif current is not None and (match := _INSTRUCTION.match(line)):
      instruction = _parse(*match.groups())
      current[instruction.name] = instruction
  if entry is None:
    raise ValueError('not the text of a compiled program: it has no ENTRY')
  return computations, entry


def _parse(root, name, results, kind, rest) -> Instruction:
  operands, _, attributes = rest.partition(')')
  if kind in ('parameter', 'constant'):
    operands, attributes = '', rest
  arrays = tuple(
    Array(dtype, tuple(int(n) for n in dims.split(',') if n), layout)
    for dtype, dims, layout in _ARRAY.findall(results)
  )
  names = tuple(_NAME.findall(operands))
  return Instruction(name, arrays, kind, names, attributes, root is not None)


def trips(
  loop: Instruction, computations: Mapping[str, Computation]
) -> int | None:
  """Returns how often a loop runs; None if unknown.

  Either XLA states it, or the loop's condition compares with a constant: the
  loops that JAX makes of a scan count from 0 to below it.
  """
  if known := _TRIPS.search(loop.attributes):
    return int(known[1])
  (name,) = re.findall(r'condition=%?([\w.\-]+)', loop.attributes)
  condition = computations[name]
  (root,) = (i for i in condition.values() if i.root)
  limit = condition.get(root.operands[1]) if len(root.operands) == 2 else None
  if root.kind != 'compare' or 'direction=LT' not in root.attributes:
    return None
  if limit is None or limit.kind != 'constant':
    return None
  return int(limit.attributes.partition(')')[0])


def _bits(dtype: str) -> int:
  """Returns the bits of one value: bf16 has 16, f8e4m3fn 8, a token none."""
  if dtype == 'pred':
    return 8
  number = re.match(r'[a-z]+(\d+)', dtype)
  return int(number[1]) if number else 0
