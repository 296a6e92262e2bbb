"""Devices to plan for: TPUs or GPUs that need not be there, or this machine.

A device is what JAX calls one: a chip, but on v3 one of a chip's two cores.
"""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import psutil
from jax.experimental import topologies

from mixdtp_jax.measure.roofline import product_rates
from mixdtp_jax.runtime.console import pip_install

_GIB = 2**30
# Part of a GPU's memory that JAX takes by default; see
# XLA_PYTHON_CLIENT_MEM_FRACTION.
_PART = 0.75
_MOST = 8  # joined by NVLink in one machine
# XLA chooses kernels for products by timing them. Without a GPU it may choose
# one that it cannot compile; a library's kernels need no compiling.
_OPTIONS = {'xla_gpu_enable_triton_gemm': False}
# How XLA says what a program lacks.
_NEEDED = re.compile(
  r'\(([\d.]+[KMGT])\) exceeds available \w+ \(([\d.]+[KMGT])\)'
  r'|Used ([\d.]+[KMGT]) of ([\d.]+[KMGT])'
)


class Chip(NamedTuple):
  """Published figures of a TPU chip or a GPU."""

  memory: int  # bytes
  peak: float  # operations a second in bfloat16, for dense matrices
  bandwidth: float  # bytes a second from and to memory
  ring: float  # bytes a second that it sends to neighbours on a ring
  name: str = ''  # that the driver gives to a GPU
  info: Mapping[str, Any] = {}  # fields of XLA's GpuDeviceInfoProto


# By the name before the colon of a topology; docs.cloud.google.com/tpu/docs,
# 2026. A chip sends by four or six ports, and on a ring by two of them. All
# together have half of the 'bidirectional' interconnect bandwidth; for v3 and
# v4, which have no such figure, a pod's all-reduce bandwidth divided by its
# chips.
CHIPS = {
  'v3': Chip(32 * _GIB, 123e12, 900e9, 332e9 / 2),
  'v4': Chip(32 * _GIB, 275e12, 1200e9, 268e9 / 3),
  'v5e': Chip(16 * _GIB, 197e12, 819e9, 200e9 / 2),
  'v5p': Chip(95 * _GIB, 459e12, 2765e9, 600e9 / 3),
  'v6e': Chip(32 * _GIB, 918e12, 1638e9, 400e9 / 2),
}
_AMPERE = {
  'cuda_compute_capability': '{ major: 8 minor: 0 }',
  'core_count': 108,
  'fpus_per_core': 64,
  'clock_rate_ghz': 1.41,
  'l2_cache_size': 40 * 2**20,
  'shared_memory_per_core': 164 * 1024,
}
_HOPPER = {
  'cuda_compute_capability': '{ major: 9 minor: 0 }',
  'core_count': 132,
  'fpus_per_core': 128,
  'clock_rate_ghz': 1.98,
  'l2_cache_size': 50 * 2**20,
  'shared_memory_per_core': 228 * 1024,
}
_ALL = {
  'shared_memory_per_block': 48 * 1024,
  'registers_per_core_limit': 65536,
  'registers_per_block_limit': 65536,
  'threads_per_warp': 32,
  'threads_per_core_limit': 2048,
  'threads_per_block_limit': 1024,
  'block_dim_limit_x': 2147483647,
  'block_dim_limit_y': 65535,
  'block_dim_limit_z': 65535,
}
# NVIDIA's data sheets and CUDA's technical tables; they exchange by NVLink.
GPUS = {
  'a100': Chip(
    80 * 10**9, 312e12, 2039e9, 300e9, 'NVIDIA A100-SXM4-80GB', _AMPERE
  ),
  'h100': Chip(
    80 * 10**9, 989e12, 3350e9, 450e9, 'NVIDIA H100 80GB HBM3', _HOPPER
  ),
  'h200': Chip(141 * 10**9, 989e12, 4800e9, 450e9, 'NVIDIA H200', _HOPPER),
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Devices to compile for, and the figures of each of them."""

  name: str  # of the topology, or a description of this machine
  devices: tuple[jax.Device, ...]
  memory: int  # bytes that a program may use
  peak: float  # operations a second
  peak_source: str  # how the peak is known
  bandwidth: float | None  # bytes a second from and to memory; None if unknown
  # Bytes a second that a device sends on a ring through all devices, in both
  # directions together; None if unknown.
  ring: float | None
  compiler_options: Mapping[str, bool] = dataclasses.field(default_factory=dict)


def find_target(topology: str | None, dtype: str) -> Target:
  """Returns the devices of a topology, or for None those of this machine.

  Must be called before JAX computes anything: a topology keeps JAX off this
  machine's accelerators. `dtype` is that of the network's products. ImportError
  if the compiler for these devices is not installed, ValueError if there is no
  such topology.
  """
  if topology is None:
    return this_machine(dtype)
  kind = topology.partition(':')[0]
  if kind in CHIPS:
    return tpu_slice(topology)
  if kind in GPUS:
    return gpu_box(topology)
  raise ValueError(
    f'--topology {topology}: choose one of {", ".join(CHIPS)}, a colon, and '
    f'chips along each axis, such as v5e:4x4, or one of {", ".join(GPUS)}, a '
    'colon, and the number of GPUs, such as h100:8'
  )


def tpu_slice(topology: str) -> Target:
  """Returns a TPU slice: one of CHIPS, and chips along each axis."""
  if importlib.util.find_spec('libtpu') is None:
    raise ImportError(
      f'--topology {topology} needs libtpu, the compiler for TPUs: '
      f'{pip_install("plan")}, or jax[tpu] of the version of JAX that is '
      'installed'
    )
  devices = _tpus(topology)
  chip = CHIPS[topology.partition(':')[0]]
  cores = len(devices) // len({tuple(d.coords) for d in devices})
  return Target(
    topology,
    devices,
    _usable_memory(devices[0]) or chip.memory // cores,
    chip.peak / cores,
    'published, in bfloat16',
    chip.bandwidth / cores,
    chip.ring / cores,
  )


def _tpus(topology: str) -> tuple[jax.Device, ...]:
  jax.config.update('jax_platforms', 'cpu')
  # No TPU is used, so another process may use it, and libtpu need not look for
  # the TPU of this machine.
  for name, value in (
    ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1'),
    ('TPU_SKIP_MDS_QUERY', '1'),
    ('TPU_WORKER_HOSTNAMES', 'localhost'),
    ('TPU_ACCELERATOR_TYPE', 'v5litepod-1'),
  ):
    os.environ.setdefault(name, value)
  generation, _, shape = topology.partition(':')
  options: dict[str, Any] = {}
  if set(shape.split('x')) == {'1'}:
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
  """Returns HBM less libtpu's part, as the error of a large program says it."""
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


def gpu_box(topology: str) -> Target:
  """Returns GPUs joined by NVLink: one of GPUS and their number."""
  kind, _, number = topology.partition(':')
  if not number.isdecimal() or not 1 <= int(number) <= _MOST:
    raise ValueError(
      f'--topology {topology}: needs the number of GPUs of one machine, 1 to '
      f'{_MOST}, such as {kind}:{_MOST}'
    )
  if importlib.util.find_spec('jax_cuda13_plugin') is None:
    raise ImportError(
      f"--topology {topology} needs JAX's plugin for CUDA, but no GPU: "
      + pip_install('plan-gpu')
    )
  gpu = GPUS[kind]
  jax.config.update('jax_platforms', 'cpu')
  found = topologies.get_topology_desc(
    platform='cuda',
    topology_name=gpu.name,
    target_config=_description(gpu),
    topology=f'1x1x{number}',  # slices, hosts, GPUs of a host
  )
  return Target(
    topology,
    tuple(found.devices),
    int(gpu.memory * _PART),
    gpu.peak,
    'published, in bfloat16',
    gpu.bandwidth,
    gpu.ring,
    _OPTIONS,
  )


def _description(gpu: Chip) -> str:
  """Returns the GPU as the text of XLA's GpuTargetConfigProto."""
  info = {
    **gpu.info,
    **_ALL,
    'device_memory_size': gpu.memory,
    'memory_bandwidth': int(gpu.bandwidth),
    # A block gets 1 KiB less.
    'shared_memory_per_block_optin': gpu.info['shared_memory_per_core'] - 1024,
  }
  fields = '\n'.join(f'{name}: {value}' for name, value in info.items())
  return f'''
    platform_name: "CUDA"
    device_description_str: "{gpu.name}"
    dnn_version_info {{ major: 9 minor: 8 }}
    runtime_version {{ major: 13 }}
    gpu_device_info {{ {fields} }}
  '''


def out_of_memory(error: jax.errors.JaxRuntimeError) -> dict[str, int]:
  """Returns the bytes that an error of XLA names: 'needed' and 'available'."""
  match = _NEEDED.search(str(error))
  sizes = [size for size in match.groups() if size] if match else []
  return {
    name: int(float(size[:-1]) * 1024 ** (1 + 'KMGT'.index(size[-1])))
    for name, size in zip(('needed', 'available'), sizes, strict=False)
  }


def this_machine(dtype: str) -> Target:
  """Returns all devices, with a measured peak rate of products in `dtype`."""
  devices = tuple(jax.devices())
  kind, on_cpu = devices[0].device_kind, devices[0].platform == 'cpu'
  memory = (devices[0].memory_stats() or {}).get('bytes_limit')
  if memory is None:  # the devices of a CPU share its memory
    memory = psutil.virtual_memory().total // len(devices)
  return Target(
    f'{len(devices)} x {kind} of this machine',
    devices,
    memory,
    max(product_rates(dtype)) / (len(devices) if on_cpu else 1),
    f'measured: a product of matrices in {dtype}',
    None,
    None,
  )
