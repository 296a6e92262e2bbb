"""Processes that work together, on one machine or on several.

Every process runs the same program and sees its own devices; all devices form
one mesh. As in JAX, "host" means such a process.
"""

import collections
import glob
import importlib.util
import os
import zlib
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar('T')

_OPTIONS = '--coordinator, --num_processes and --process_id'


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other processes. Call it before any other use of JAX.

  Without arguments, JAX asks the cluster: a TPU slice, Slurm (`srun`) or Open
  MPI (`mpirun`), which start one process for each GPU. Without a cluster, or
  with one process, nothing happens. `coordinator` is HOST:PORT of process 0.

  Raises:
    ValueError: some arguments are missing, the cluster does not say enough, or
      the processes have different numbers of devices.
    RuntimeError: JAX was used before, or a process did not come.
  """
  given = (coordinator, num_processes, process_id)
  if any(value is not None for value in given):
    if None in given:
      raise ValueError(f'{_OPTIONS} belong together: give all three')
    # The options say everything: a process has every device that it sees.
    jax.distributed.initialize(*given, cluster_detection_method='deactivate')
  elif cluster := _cluster():
    try:
      jax.distributed.initialize()
    except ValueError as error:
      raise ValueError(
        f'{cluster} does not tell JAX who the other processes are ({error}): '
        f'give {_OPTIONS}'
      ) from error
  else:
    return
  _check_devices()


def _cluster() -> str | None:
  """Returns the cluster that started this and other processes, or None."""
  # Only srun sets this: a script started by sbatch has no other processes.
  if int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1:
    return 'Slurm'
  if int(os.environ.get('OMPI_COMM_WORLD_SIZE', '1')) > 1:
    return 'Open MPI'
  names = ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES')
  if any(',' in os.environ.get(name, '') for name in names):
    return 'the TPU slice'
  # On a virtual machine, only the metadata server knows the slice. JAX itself
  # sets the variable if it finds no TPU.
  chips = glob.glob('/dev/accel*') + glob.glob('/dev/vfio/[0-9]*')
  if (
    chips
    and importlib.util.find_spec('libtpu')
    and 'TPU_SKIP_MDS_QUERY' not in os.environ
    and 'tpu' in os.environ.get('JAX_PLATFORMS', 'tpu')
  ):
    return 'the TPU'
  return None


def _check_devices() -> None:
  counts = collections.Counter(d.process_index for d in jax.devices())
  if len(set(counts.values())) > 1:
    found = ', '.join(f'{i} has {counts[i]}' for i in sorted(counts))
    raise ValueError(
      f'the processes have different numbers of devices ({found}): start all '
      'with the same number'
    )


def is_first() -> bool:
  """Returns whether this is the process that writes files and prints."""
  return jax.process_index() == 0


def in_turn(work: Callable[[], T]) -> T:
  """Does `work` on the first host, and then on the others.

  So the others find what the first host wrote into a shared folder; if each
  host has its own folder, each writes it. `work` must not wait for other hosts,
  as reading a checkpoint does, because they have not started it yet.
  RuntimeError on the other hosts if `work` failed on the first.
  """
  if not is_first():
    if not _from_first(0):
      raise RuntimeError('stopped as process 0 did: see its messages')
    return work()
  done = 0
  try:
    result = work()
    done = 1
  finally:
    _from_first(done)
  return result


def check_same(what: str, text: str) -> None:
  """Raises ValueError, on all hosts, if a text differs on one."""
  number = np.int32(zlib.crc32(text.encode()) >> 1)
  numbers = np.ravel(multihost_utils.process_allgather(number))
  if others := np.flatnonzero(numbers != numbers[0]).tolist():
    raise ValueError(
      f'{what} is not the same in process {", ".join(map(str, others))} as in '
      'process 0: start all with the same command and the same files'
    )


def _from_first(number: int) -> int:
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))
