"""What a step is planned for: a TPU slice that need not exist, or this machine.

A device is what JAX calls one: a chip, but of v3 one of its two cores.
"""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from mixdtp_jax.measure.timing import seconds

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """Public figures of a TPU chip: docs.cloud.google.com/tpu/docs, 2026.

  Attributes:
    memory: bytes of HBM.
    peak: operations a second in bfloat16.
    bandwidth: bytes a second from and to HBM.
    links: bytes a second that it sends to its neighbours over all its ports:
      half of the 'bidirectional' interconnect bandwidth; of v3 and v4, which
      have no such figure, a pod's all-reduce bandwidth for each chip.
    ports: to neighbours, two for each axis of the torus.
  """

  memory: int
  peak: float
  bandwidth: float
  links: float
  ports: int


# By the name before the colon of a topology.
CHIPS = {
  'v3': Chip(32 * _GIB, 123e12, 900e9, 332e9, 4),
  'v4': Chip(32 * _GIB, 275e12, 1200e9, 268e9, 6),
  'v5e': Chip(16 * _GIB, 197e12, 819e9, 200e9, 4),
  'v5p': Chip(95 * _GIB, 459e12, 2765e9, 600e9, 6),
  'v6e': Chip(32 * _GIB, 918e12, 1638e9, 400e9, 4),
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Devices to compile for, and what each of them can do.

  Attributes:
    name: of the topology, or what this machine has.
    devices: to make a mesh of.
    memory: bytes of each device that a program may use.
    peak: operations a second of each.
    peak_source: where that is from.
    bandwidth: bytes a second between each and its memory; None where it is not
      known.
    ring: bytes a second that each sends on a ring through all of them, in both
      of its directions; None where it is not known.
    compiler_options: what XLA is told besides.
  """

  name: str
  devices: tuple[jax.Device, ...]
  memory: int
  peak: float
  peak_source: str
  bandwidth: float | None
  ring: float | None
  compiler_options: Mapping[str, bool] = dataclasses.field(default_factory=dict)


def tpu_slice(topology: str) -> Target:
  """A TPU slice, which need not be there.

  Call it before JAX computes anything: it keeps JAX off this machine's
  accelerators.

  Args:
    topology: one of CHIPS and how many along each axis, such as v5e:4x4.

  Raises:
    ImportError: libtpu, which compiles for TPUs, is not installed.
    ValueError: there is no such topology.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise ImportError(
      f'--topology {topology} needs libtpu, the compiler for TPUs: '
      "pip install 'mixdtp_jax[plan]', or jax[tpu] of the version of JAX that "
      'is installed'
    )
  devices = _devices(topology)
  chip = CHIPS[topology.partition(':')[0]]
  cores = len(devices) // len({tuple(d.coords) for d in devices})
  return Target(
    topology,
    devices,
    _usable_memory(devices[0]) or chip.memory // cores,
    chip.peak / cores,
    'published, in bfloat16',
    chip.bandwidth / cores,
    chip.links / chip.ports * 2 / cores,
  )


def _devices(topology: str) -> tuple[jax.Device, ...]:
  jax.config.update('jax_platforms', 'cpu')
  # No TPU is used, so another process may; and libtpu need not look for the
  # TPU that this machine would be a host of.
  for name, value in (
    ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1'),
    ('TPU_SKIP_MDS_QUERY', '1'),
    ('TPU_WORKER_HOSTNAMES', 'localhost'),
    ('TPU_ACCELERATOR_TYPE', 'v5litepod-1'),
  ):
    os.environ.setdefault(name, value)
  generation, _, shape = topology.partition(':')
  options = {}
  if shape and set(shape.split('x')) == {'1'}:
    options['chips_per_host_bounds'] = (1, 1, 1)  # a host of one chip
  if generation == 'v4':
    options['chip_config_name'] = 'megacore'  # as JAX runs it: a device a chip
  try:
    found = topologies.get_topology_desc(
      platform='tpu', topology_name=topology, **options
    )
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(
      f'--topology {topology}: {str(error).splitlines()[0]}'
    ) from error
  return tuple(found.devices)


def _usable_memory(device: jax.Device) -> int | None:
  """HBM less what libtpu keeps: told by the error of a program too large."""
  terabytes = jax.ShapeDtypeStruct(
    (2**20, 2**20),
    jnp.float32,
    sharding=jax.sharding.SingleDeviceSharding(device),
  )
  try:
    jax.jit(lambda x: x + 1).lower(terabytes).compile()
  except jax.errors.JaxRuntimeError as error:
    return out_of_memory(error).get('available')
  return None


def out_of_memory(error: jax.errors.JaxRuntimeError) -> dict[str, int]:
  """The bytes that XLA's error names: 'needed' and 'available', if any."""
  for pattern in (
    r'\((?P<needed>[\d.]+[KMGT])\) exceeds available \w+ '
    r'\((?P<available>[\d.]+[KMGT])\)',
    r'Used (?P<needed>[\d.]+[KMGT]) of (?P<available>[\d.]+[KMGT])',
  ):
    if match := re.search(pattern, str(error)):
      return {
        name: int(float(text[:-1]) * 1024 ** (1 + 'KMGT'.index(text[-1])))
        for name, text in match.groupdict().items()
      }
  return {}


def this_machine(dtype: str) -> Target:
  """All devices of this machine, their peak rate measured.

  Args:
    dtype: of the network's products.
  """
  devices = tuple(jax.devices())
  device = devices[0]
  return Target(
    f'{len(devices)} x {device.device_kind} of this machine',
    devices,
    _memory(device, len(devices)),
    _measured_peak(dtype) / (len(devices) if device.platform == 'cpu' else 1),
    f'measured: a product of matrices in {dtype}',
    None,
    None,
  )


def _memory(device: jax.Device, devices: int) -> int:
  statistics = device.memory_stats() or {}
  if limit := statistics.get('bytes_limit'):
    return limit
  # A CPU: its devices share the memory.
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // devices


def _measured_peak(dtype: str) -> float:
  """Operations a second of one device: the best of five products.

  The matrices grow until a product takes 50 ms.
  """
  size, best = 512, 0.0
  while size <= 16_384:
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(matrix))
    times = [
      seconds(lambda: jax.block_until_ready(product(matrix)))[0]  # noqa: B023
      for _ in range(5)
    ]
    best = max(best, 2 * size**3 / min(times))
    if min(times) > 0.05:
      break
    size *= 2
  return best
