"""What a compiled program says of itself: its exchanges and its traffic."""

import dataclasses
import math
import re
from collections.abc import Iterator

from mixdtp_jax.tools.plan import hlo

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
    self._computations, entry = hlo.read(text)
    self._times = dict.fromkeys(self._computations, 0)
    self._times[entry] = 1
    self.unknown_loops = 0  # those whose length is not stated: they count once
    self._inside = set()  # what is a part of an instruction, such as a fusion
    # Each is written before what calls it.
    for name in reversed(self._computations):
      for instruction in self._computations[name].values():
        self._follow(instruction, self._times[name])

  def _follow(self, instruction: hlo.Instruction, times: int) -> None:
    if instruction.kind == 'while':
      trips = hlo.trips(instruction, self._computations)
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
    count. Of a library's call on a GPU (cuBLAS, cuDNN) the room that it has to
    work in does not count. A CPU and a GPU have caches, which serve some of it.
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


def _operands(instruction, computation) -> Iterator[tuple[int, hlo.Array]]:
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
      use.kind in ('slice', 'dynamic-slice') and use.operands[0] == name
      for name, use in uses
    ):
      return sum(use.results[0].stored_bytes for _, use in uses)
    if uses and all(
      use.kind == 'dynamic-update-slice' and use.operands[0] == name
      for name, use in uses
    ):
      return 0  # what is not replaced stays where it is
  elif instruction.kind in ('slice', 'dynamic-slice') and index == 0:
    return instruction.results[0].stored_bytes
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
  if 'custom_call_target="__cu' in instruction.attributes:
    # The last of several is room to work in.
    return _stored(instruction.results[:-1] or instruction.results)
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


def _group_size(attributes: str, devices: int) -> int:
  if listed := re.search(r'replica_groups=\{\{([\d,]+)\}', attributes):
    return listed[1].count(',') + 1
  if shape := re.search(r'replica_groups=\[(\d+),(\d+)\]', attributes):
    return int(shape[2])
  # mesh['axis_0'=4,'axis_1'=2] {'axis_0'}: groups along some axes of a mesh.
  if axes := re.search(
    r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', attributes
  ):
    sizes = dict(re.findall(r"('\w+')=(\d+)", axes[1]))
    return math.prod(int(sizes[axis]) for axis in axes[2].split(','))
  return devices
