"""What a compiled program says of itself: its collectives and its traffic.

Reads the text of XLA's optimised program, `compiled.as_text()`, which is what
one device runs. XLA states there how often each loop runs.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

_COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'all-to-all',
  'ragged-all-to-all',
  'reduce-scatter',
  'collective-permute',
  'collective-broadcast',
)

# Instructions that only name what is there, or that end what began before.
_FREE = (
  'parameter',
  'constant',
  'tuple',
  'get-tuple-element',
  'bitcast',
  'after-all',
  'partition-id',
  'replica-id',
  'while',
  'conditional',
  'call',
)

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


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Collective:
  """An exchange between devices.

  Attributes:
    kind: such as all-reduce.
    dtypes: of what is exchanged, as XLA names them.
    bytes: of what a device puts in, each time.
    devices: that exchange with one another.
    times: a step.
  """

  kind: str
  dtypes: tuple[str, ...]
  bytes: int
  devices: int
  times: int

  @property
  def sent_bytes(self) -> float:
    """What each device sends on a ring in a step; of a permutation, all."""
    others = self.devices - 1
    factor = {
      'all-reduce': 2 * others / self.devices,
      'all-gather': others,
      'all-to-all': others / self.devices,
      'ragged-all-to-all': others / self.devices,
      'reduce-scatter': others / self.devices,
    }.get(self.kind, 1)
    return factor * self.bytes * self.times


class Program:
  """A compiled program, read."""

  def __init__(self, text: str, devices: int):
    """Reads it.

    Args:
      text: `compiled.as_text()`.
      devices: that run it.

    Raises:
      ValueError: it is not such a text.
    """
    self._devices = devices
    self._computations, entry = _read(text)
    self._times = dict.fromkeys(self._computations, 0)
    self._times[entry] = 1
    self.unknown_loops = 0  # those whose length is not stated: they count once
    self._inside = set()  # what is a part of an instruction, such as a fusion
    # Each is written before what calls it.
    for name in reversed(self._computations):
      for instruction in self._computations[name].values():
        self._follow(instruction, self._times[name])

  def _follow(self, instruction: Instruction, times: int) -> None:
    if instruction.kind == 'while':
      trips = _trips(instruction, self._computations)
      self.unknown_loops += trips is None
      times *= 1 if trips is None else trips
    for called in instruction.called:
      self._times[called] += times
    if instruction.kind not in ('while', 'conditional', 'call'):
      self._inside.update(instruction.called)

  def collectives(self) -> list[Collective]:
    """The exchanges of one step, in the order of the text."""
    found = []
    for name, computation in self._computations.items():
      for instruction in computation.values():
        kind = instruction.kind.removesuffix('-start')
        if kind not in _COLLECTIVES or not self._times[name]:
          continue
        put_in = [array for _, array in _operands(instruction, computation)]
        found.append(
          Collective(
            kind,
            tuple(sorted({array.dtype for array in put_in})),
            sum(array.bytes for array in put_in),
            _group_size(instruction.attributes, self._devices),
            self._times[name],
          )
        )
    return found

  def memory_traffic(self) -> int:
    """Bytes that a step moves between a device's main memory and its kernels.

    What each kernel reads and writes, with the filling of tiles, and without
    what stays in a memory beside the compute units where the program says so
    (on a TPU). Of an array that is read or replaced by slices, the slices
    count. A CPU and a GPU have caches, which serve some of it.
    """
    return sum(
      self._times[name]
      * sum(
        _traffic(instruction, computation, self._computations)
        for instruction in computation.values()
      )
      for name, computation in self._computations.items()
      if name not in self._inside
    )


def _traffic(instruction, computation, computations) -> int:
  kind = instruction.kind
  if kind in _FREE or kind.endswith(('-done', '-update')):
    return 0
  if re.search(
    r'custom_call_target="(AllocateBuffer|ConcatBitcast)"',
    instruction.attributes,
  ):
    return 0  # room, or names for what is there
  if kind in ('copy-start', 'slice-start'):
    # Its results name the source too: (new, source) of a copy, else reversed.
    arrived = instruction.results[kind == 'slice-start']
    ((_, source),) = _operands(instruction, computation)
    places = source.in_main_memory + arrived.in_main_memory
    return places * arrived.stored_bytes
  body = (
    computations[instruction.called[0]] if kind == 'fusion' else computation
  )
  written = _written(instruction, body, computation)
  return written + sum(
    _read_of(instruction, index, array, body, computation)
    for index, array in _operands(instruction, computation)
    if array.in_main_memory
  )


def _operands(instruction, computation) -> Iterator[tuple[int, Array]]:
  """Each array of each operand, and the operand's number."""
  for index, name in enumerate(instruction.operands):
    if name in computation:
      for array in computation[name].results:
        yield index, array


def _read_of(instruction, index, array, body, computation) -> int:
  """Bytes of an operand that are read: all, or those of slices."""
  if instruction.kind == 'fusion':
    uses = _uses(body, index)
    if uses and all(
      use.kind == 'dynamic-slice' and use.operands[0] == name
      for name, use in uses
    ):
      return sum(_stored(use.results) for _, use in uses)
    if uses and all(
      use.kind == 'dynamic-update-slice' and use.operands[0] == name
      for name, use in uses
    ):
      return 0  # what is not replaced stays where it is
  elif instruction.kind == 'dynamic-slice' and index == 0:
    return _stored(instruction.results)
  elif instruction.kind == 'dynamic-update-slice' and index == 0:
    return 0
  return array.stored_bytes


def _uses(body, index):
  """(name that is used, instruction) of a fusion's parameter."""
  (name,) = (
    i.name
    for i in body.values()
    if i.kind == 'parameter' and i.attributes.startswith(f'{index})')
  )
  names = {name}
  found = []
  for instruction in body.values():  # in the order of definition
    used = [operand for operand in instruction.operands if operand in names]
    if used and instruction.kind == 'bitcast':
      names.add(instruction.name)
    elif used:
      found.append((used[0], instruction))
  return found


def _written(instruction, body, computation) -> int:
  """Bytes of the results; of an array that is updated, the update's."""
  makers = [instruction]
  if instruction.kind == 'fusion':
    (root,) = (i for i in body.values() if i.root)
    makers = [root]
    if root.kind == 'tuple':
      makers = [body[name] for name in root.operands]
  if len(makers) != len(instruction.results):
    return _stored(instruction.results)
  total = 0
  for maker, array in zip(makers, instruction.results, strict=True):
    while maker.kind == 'bitcast' and maker.operands[0] in body:
      maker = body[maker.operands[0]]
    if not array.in_main_memory:
      continue
    where = body if instruction.kind == 'fusion' else computation
    if maker.kind == 'dynamic-update-slice' and maker.operands[1] in where:
      total += where[maker.operands[1]].results[0].stored_bytes
    else:
      total += array.stored_bytes
  return total


def _stored(arrays) -> int:
  return sum(a.stored_bytes for a in arrays if a.in_main_memory)


def _read(text: str) -> tuple[dict[str, Computation], str]:
  """Computations by name in the order of the text, and the entry's name."""
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


def _trips(loop: Instruction, computations) -> int | None:
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


def _group_size(attributes: str, devices: int) -> int:
  if listed := re.search(r'replica_groups=\{\{([\d,]+)\}', attributes):
    return listed[1].count(',') + 1
  if shape := re.search(r'replica_groups=\[(\d+),(\d+)\]', attributes):
    return int(shape[2])
  return devices
