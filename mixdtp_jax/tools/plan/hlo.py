"""Reads the text of a program that XLA has compiled, `compiled.as_text()`.

It is what one device runs, computation by computation, each before those that
call it.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

_HEADER = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_TILE = re.compile(r'T\(([\d,]+)\)')
_CALLED = re.compile(
  r'(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'(?:branch|called)_computations=\{([^}]*)\}')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Array:
  """An array in the program.

  Attributes:
    dtype: as XLA names it, such as bf16.
    dims: its shape.
    layout: how it lies, such as 1,0:T(8,128)S(1); '' where none is stated.
  """

  dtype: str
  dims: tuple[int, ...]
  layout: str

  @property
  def bytes(self) -> int:
    """Of the values alone."""
    return math.prod(self.dims) * _bits(self.dtype) // 8

  @property
  def stored_bytes(self) -> int:
    """With the filling of tiles: a TPU's arrays come in tiles as of 8x128."""
    order, _, rest = self.layout.partition(':')
    tile = _TILE.match(rest)
    if not tile or not self.dims:
      return self.bytes
    dims = [self.dims[int(axis)] for axis in order.split(',')]  # minor first
    tiles = [int(size) for size in tile[1].split(',')][::-1]
    if len(tiles) > len(dims):
      dims += [1] * (len(tiles) - len(dims))
    for axis, size in enumerate(tiles):
      dims[axis] = -(-dims[axis] // size) * size
    return math.prod(dims) * _bits(self.dtype) // 8

  @property
  def in_main_memory(self) -> bool:
    """Not in a memory beside the compute units, which S(1) and so on name."""
    return 'S(' not in self.layout


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of the program.

  Attributes:
    name: unique in its computation.
    results: the arrays that it makes; several of a tuple.
    kind: the operation, such as all-reduce-start.
    operands: names of instructions, in order.
    attributes: the rest of the line.
    root: whether its results are those of its computation.
  """

  name: str
  results: tuple[Array, ...]
  kind: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  @property
  def called(self) -> list[str]:
    """Names of the computations that it runs, without a loop's condition."""
    names = _CALLED.findall(self.attributes)
    for listed in _BRANCHES.findall(self.attributes):
      names += re.findall(r'[\w.\-]+', listed)
    return names


Computation = Mapping[str, Instruction]  # by name, in order


def read(text: str) -> tuple[dict[str, Computation], str]:
  """Computations by name in the order of the text, and the entry's name.

  Raises:
    ValueError: it is not such a text.
  """
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if header := _HEADER.match(line):
      current = computations[header[2]] = {}
      if header[1]:
        entry = header[2]
    elif line.startswith('}'):
      current = None
    elif current is not None and ' = ' in line:
      instruction = _parse(line)
      current[instruction.name] = instruction
  if entry is None:
    raise ValueError('not the text of a compiled program: it has no ENTRY')
  return computations, entry


def trips(loop: Instruction, computations) -> int | None:
  """How often a loop runs: as XLA states, or as its condition says.

  The loops that JAX makes of a scan count from 0 to below a constant.
  """
  if known := _TRIPS.search(loop.attributes):
    return int(known[1])
  condition = computations[
    re.search(r'condition=%?([\w.\-]+)', loop.attributes)[1]
  ]
  (root,) = (i for i in condition.values() if i.root)
  limit = condition.get(root.operands[1]) if len(root.operands) == 2 else None
  if root.kind != 'compare' or 'direction=LT' not in root.attributes:
    return None
  if limit is None or limit.kind != 'constant':
    return None
  return int(limit.attributes.partition(')')[0])


def _parse(line: str) -> Instruction:
  name, _, rest = line.strip().partition(' = ')
  root, name = name.startswith('ROOT '), name.removeprefix('ROOT ')
  end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  results, rest = rest[:end], rest[end:].lstrip()
  start = rest.index('(')
  kind, end = rest[:start], _closing(rest, start)
  operands = rest[start + 1 : end]
  # These have a number where others have operands.
  numbered = kind in ('parameter', 'constant')
  attributes = rest[start + 1 :] if numbered else rest[end + 1 :]
  return Instruction(
    name.removeprefix('%'),
    _arrays(results),
    kind,
    tuple(re.findall(r'%([\w.\-]+)', operands)),
    attributes,
    root,
  )


def _arrays(text: str) -> tuple[Array, ...]:
  return tuple(
    Array(dtype, tuple(int(n) for n in dims.split(',') if n), layout)
    for dtype, dims, layout in _ARRAY.findall(text)
  )


def _closing(text: str, start: int) -> int:
  """Where the bracket that opens at `start` closes."""
  depth = 0
  for match in re.finditer(r'[()]', text[start:]):
    depth += 1 if match[0] == '(' else -1
    if not depth:
      return start + match.start()
  raise ValueError(f'a bracket that is not closed: {text[:80]}')


def _bits(dtype: str) -> int:
  """Of one value: bf16 has 16, f8e4m3fn 8; a token none."""
  if dtype == 'pred':
    return 8
  number = re.match(r'[a-z]+(\d+)', dtype)
  return int(number[1]) if number else 0
