"""GPUs of one machine to plan for, which need not be there."""

import dataclasses
import importlib.util

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


@dataclasses.dataclass(frozen=True)
class Gpu:
  """Public figures of a GPU: NVIDIA's data sheets and CUDA's technical tables.

  Attributes:
    name: that the driver gives it.
    capability: version of CUDA's compute capability, major and minor.
    processors: number of streaming multiprocessors.
    lanes: float32 units of a multiprocessor.
    shared: bytes of a multiprocessor's shared memory; a block gets 1 KiB less.
    clock: highest clock in GHz.
    cache: bytes of the second-level cache.
    memory: bytes of its memory.
    peak: operations a second in bfloat16, for dense matrices.
    bandwidth: bytes a second from and to memory.
    links: bytes a second that it sends to others over NVLink.
  """

  name: str
  capability: tuple[int, int]
  processors: int
  lanes: int
  shared: int
  clock: float
  cache: int
  memory: int
  peak: float
  bandwidth: float
  links: float


_H100 = Gpu(
  name='NVIDIA H100 80GB HBM3',
  capability=(9, 0),
  processors=132,
  lanes=128,
  shared=228 * 1024,
  clock=1.98,
  cache=50 * 2**20,
  memory=80 * 10**9,
  peak=989e12,
  bandwidth=3350e9,
  links=450e9,
)

# By the name before the colon of a topology.
GPUS = {
  'a100': Gpu(
    name='NVIDIA A100-SXM4-80GB',
    capability=(8, 0),
    processors=108,
    lanes=64,
    shared=164 * 1024,
    clock=1.41,
    cache=40 * 2**20,
    memory=80 * 10**9,
    peak=312e12,
    bandwidth=2039e9,
    links=300e9,
  ),
  'h100': _H100,
  'h200': dataclasses.replace(
    _H100, name='NVIDIA H200', memory=141 * 10**9, bandwidth=4800e9
  ),
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
  major, minor = gpu.capability
  return f"""
    platform_name: "CUDA"
    device_description_str: "{gpu.name}"
    dnn_version_info {{ major: 9 minor: 8 }}
    runtime_version {{ major: 13 }}
    gpu_device_info {{
      cuda_compute_capability {{ major: {major} minor: {minor} }}
      core_count: {gpu.processors}
      fpus_per_core: {gpu.lanes}
      clock_rate_ghz: {gpu.clock}
      l2_cache_size: {gpu.cache}
      device_memory_size: {gpu.memory}
      memory_bandwidth: {int(gpu.bandwidth)}
      shared_memory_per_core: {gpu.shared}
      shared_memory_per_block: {48 * 1024}
      shared_memory_per_block_optin: {gpu.shared - 1024}
      registers_per_core_limit: 65536
      registers_per_block_limit: 65536
      threads_per_warp: 32
      threads_per_core_limit: 2048
      threads_per_block_limit: 1024
      block_dim_limit_x: 2147483647
      block_dim_limit_y: 65535
      block_dim_limit_z: 65535
    }}
  """
