"""GPUs of one machine to plan for, which need not be there."""

import importlib.util
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from mixdtp_jax.tools.plan.targets import Target

# Part of a GPU's memory that JAX takes by default; see
# XLA_PYTHON_CLIENT_MEM_FRACTION.
_PART = 0.75
_MOST = 8  # joined by NVLink in one machine
# XLA chooses kernels for products by timing them. Without a GPU it may choose
# one that it cannot compile; a library's kernels need no compiling.
_OPTIONS = {'xla_gpu_enable_triton_gemm': False}


class Gpu(NamedTuple):
  """Figures of a GPU: NVIDIA's data sheets and CUDA's technical tables."""

  name: str  # that the driver gives it
  memory: int  # bytes
  peak: float  # operations a second in bfloat16, for dense matrices
  bandwidth: float  # bytes a second from and to memory
  links: float  # bytes a second that it sends to others over NVLink
  chip: dict[str, Any]  # fields of XLA's GpuDeviceInfoProto


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
# By the name before the colon of a topology.
GPUS = {
  'a100': Gpu(
    'NVIDIA A100-SXM4-80GB', 80 * 10**9, 312e12, 2039e9, 300e9, _AMPERE
  ),
  'h100': Gpu(
    'NVIDIA H100 80GB HBM3', 80 * 10**9, 989e12, 3350e9, 450e9, _HOPPER
  ),
  'h200': Gpu('NVIDIA H200', 141 * 10**9, 989e12, 4800e9, 450e9, _HOPPER),
}


def gpu_box(topology: str) -> Target:
  """Returns GPUs joined by NVLink, which need not be there.

  Must be called before JAX computes anything, because it keeps JAX off this
  machine's accelerators.

  Args:
    topology: one of GPUS and their number, such as h100:8.

  Raises:
    ImportError: JAX's plugin for CUDA, which compiles for GPUs, is not
      installed.
    ValueError: the number of GPUs does not fit.
  """
  kind, _, number = topology.partition(':')
  if not number.isdecimal() or not 1 <= int(number) <= _MOST:
    raise ValueError(
      f'--topology {topology}: needs the number of GPUs of one machine, 1 to '
      f'{_MOST}, such as {kind}:{_MOST}'
    )
  if importlib.util.find_spec('jax_cuda13_plugin') is None:
    raise ImportError(
      f"--topology {topology} needs JAX's plugin for CUDA, but no GPU: "
      "pip install 'mixdtp_jax[plan-gpu]'"
    )
  gpu = GPUS[kind]
  return Target(
    topology,
    _devices(gpu, int(number)),
    int(gpu.memory * _PART),
    gpu.peak,
    'published, in bfloat16',
    gpu.bandwidth,
    gpu.links,
    _OPTIONS,
  )


def _devices(gpu: Gpu, number: int) -> tuple[jax.Device, ...]:
  jax.config.update('jax_platforms', 'cpu')
  return tuple(
    topologies.get_topology_desc(
      platform='cuda',
      topology_name=gpu.name,
      target_config=_description(gpu),
      topology=f'1x1x{number}',  # slices, hosts, GPUs of a host
    ).devices
  )


def _description(gpu: Gpu) -> str:
  """Returns the GPU as the text of XLA's GpuTargetConfigProto."""
  info = gpu.chip | _ALL
  info |= {
    'device_memory_size': gpu.memory,
    'memory_bandwidth': int(gpu.bandwidth),
    # A block gets 1 KiB less.
    'shared_memory_per_block_optin': info['shared_memory_per_core'] - 1024,
  }
  fields = '\n'.join(f'{name}: {value}' for name, value in info.items())
  return f'''
    platform_name: "CUDA"
    device_description_str: "{gpu.name}"
    dnn_version_info {{ major: 9 minor: 8 }}
    runtime_version {{ major: 13 }}
    gpu_device_info {{ {fields} }}
  '''
