"""The exchanges and the memory traffic of a compiled program."""

import dataclasses
import math
import re
from collections.abc import Iterator

from mixdtp_jax.tools.plan import hlo

_COLLECTIVES = {
  'all-reduce', 'all-gather', 'all-to-all', 'ragged-all-to-all',
  'reduce-scatter', 'collective-permute', 'collective-broadcast',
}  # fmt: skip
_LOOPS_AND_CALLS = {'while', 'conditional', 'call'}
# Instructions that name something, or end what began before.
_FREE = _LOOPS_AND_CALLS | {
  'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast',
  'after-all', 'partition-id', 'replica-id',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
  """An exchange between devices."""

  kind: str  # such as all-reduce
  dtypes: tuple[str, ...]  # of the arrays, as XLA names them
  bytes: int  # of a device's input, each time
  devices: int  # that exchange with one another
  times: int  # in a step

  @property
  def sent_bytes(self) -> float:
    """What each device sends on a ring in a step; of a permutation, all."""
    others = self.devices - 1
    factor = {
      'all-reduce': 2 * others / self.devices,
      'all-gather': others,
      'collective-permute': 1,
      'collective-broadcast': 1,
    }.get(self.kind, others / self.devices)
    return factor * self.bytes * self.times


class Program:
  """A compiled program, from `compiled.as_text()`.

  Its `unknown_loops` of unknown length count once.
  """

  def __init__(self, text: str, devices: int):
    self._devices = devices
    self._computations, entry = hlo.read(text)
    self._times = dict.fromkeys(self._computations, 0)
    self._times[entry] = 1
    self.unknown_loops = 0
    # Computations that are parts of an instruction.
    self._inside: set[str] = set()
    # Each is written before what calls it.
    for name in reversed(list(self._computations)):
      for instruction in self._computations[name].values():
        times = self._times[name]
        if instruction.kind == 'while':
          trips = hlo.trips(instruction, self._computations)
          self.unknown_loops += trips is None
          times *= 1 if trips is None else trips
        for called in instruction.called:
          self._times[called] += times
        if instruction.kind not in _LOOPS_AND_CALLS:
          self._inside.update(instruction.called)

  def collectives(self) -> list[Collective]:
    """Returns the exchanges of one step, in the order of the text."""
    found = []
    for name, computation in self._computations.items():
      for instruction in computation.values():
        kind = instruction.kind.removesuffix('-start')
        if kind in _COLLECTIVES and self._times[name]:
          put_in = [array for _, array in _operands(instruction, computation)]
          dtypes = tuple(sorted({array.dtype for array in put_in}))
          size = sum(array.bytes for array in put_in)
          devices = _group_size(instruction.attributes, self._devices)
          times = self._times[name]
          found.append(Collective(kind, dtypes, size, devices, times))
    return found

  def memory_traffic(self) -> int:
    """Returns the bytes between a device's main memory and its kernels.

    Counts what each kernel of a step reads and writes, with the padding of
    tiles, except what the program places in a memory beside the compute units
    (on a TPU). If an array is read or updated in slices, the slices count. The
    workspace of a library's call on a GPU (cuBLAS, cuDNN) does not count. The
    caches of a CPU or a GPU serve some of it.
    """
    return sum(
      self._times[name] * self._traffic(instruction, computation)
      for name, computation in self._computations.items()
      if name not in self._inside
      for instruction in computation.values()
    )

  def _traffic(
    self, instruction: hlo.Instruction, computation: hlo.Computation
  ) -> int:
    kind = instruction.kind
    if kind in _FREE or kind.endswith(('-done', '-update')):
      return 0
    # These reserve memory, or give it another name.
    reserved = r'custom_call_target="(AllocateBuffer|ConcatBitcast)"'
    if re.search(reserved, instruction.attributes):
      return 0
    operands = list(_operands(instruction, computation))
    if kind in ('copy-start', 'slice-start'):
      # A copy's results are (new, source), a slice's (source, new).
      arrived = instruction.results[kind == 'slice-start']
      ((_, source),) = operands
      places = source.in_main_memory + arrived.in_main_memory
      return places * arrived.stored_bytes
    body = None
    if kind == 'fusion':
      body = self._computations[instruction.called[0]]
    read = sum(
      _read(instruction, index, array, body)
      for index, array in operands
      if array.in_main_memory
    )
    return read + _written(instruction, body or computation)


def _operands(instruction, computation) -> Iterator[tuple[int, hlo.Array]]:
  """Yields each array of each operand, with the operand's number."""
  for index, name in enumerate(instruction.operands):
    if name in computation:
      for array in computation[name].results:
        yield index, array


def _read(instruction, index, array, body) -> int:
  """Returns the bytes of an operand that are read: all, or those of slices."""
  uses = [(instruction.operands[index], instruction)]
  if body is not None:
    uses = _uses(body, index)
  kinds = {
    use.kind if use.operands[0] == name else 'other' for name, use in uses
  }
  if kinds and kinds <= {'slice', 'dynamic-slice'}:
    return sum(use.results[0].stored_bytes for _, use in uses)
  if kinds == {'dynamic-update-slice'}:
    return 0  # what is not replaced stays where it is
  return array.stored_bytes


def _uses(body, index) -> list[tuple[str, hlo.Instruction]]:
  """Returns (name, user) for each use of a fusion's parameter."""
  names, found = set(), []
  for instruction in body.values():  # in the order of definition
    used = [operand for operand in instruction.operands if operand in names]
    if instruction.kind == 'parameter':
      again = instruction.attributes.startswith(f'{index})')
    else:
      again = used and instruction.kind == 'bitcast'
    if again:
      names.add(instruction.name)
    elif used:
      found.append((used[0], instruction))
  return found


def _written(instruction, body) -> int:
  """Returns the bytes written: all results, or the slice of an update.

  `body` is that of a fusion, else the computation with the instruction.
  """
  results = instruction.results
  makers = [instruction]
  if 'custom_call_target="__cu' in instruction.attributes:
    results = results[:-1] or results  # the last of several is workspace
  elif instruction.kind == 'fusion':
    (root,) = (i for i in body.values() if i.root)
    makers = [root]
    if root.kind == 'tuple':
      makers = [body[name] for name in root.operands]
  total = 0
  for number, array in enumerate(results):
    if not array.in_main_memory:
      continue
    maker = makers[number] if len(makers) == len(results) else instruction
    while maker.kind == 'bitcast' and maker.operands[0] in body:
      maker = body[maker.operands[0]]
    if maker.kind == 'dynamic-update-slice' and maker.operands[1] in body:
      array = body[maker.operands[1]].results[0]
    total += array.stored_bytes
  return total


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
