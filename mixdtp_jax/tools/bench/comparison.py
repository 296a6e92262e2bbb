"""Times JAX beside variants in PyTorch that do the same work."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixdtp_jax.measure.timed import Timed
from mixdtp_jax.measure.timing import paired, seconds
from mixdtp_jax.runtime.tables import Table

_MIB = 2**20
_HEAD = ('', 'start s', 'run s', 'images/s', 'MiB', 'time', 'quartiles',
         'memory')  # fmt: skip


def compare(
  ours: Timed, variants: Mapping[str, Callable[[], Timed]], repeats: int
) -> dict[str, Any]:
  """Times JAX alone, then in turns with each variant.

  Args:
    ours: JAX.
    variants: functions that prepare the variants when their turn has come. A
      MemoryError, or the RuntimeError of a PyTorch without a compiler, is noted
      as the variant's failure.
    repeats: timed runs alone, and in turns with each variant.

  Returns:
    'jax': its cost, the 'seconds' of a run (median), and of all runs 'alone';
    'opponents': for each variant the same, 'timing' in turns with JAX, and
    JAX's time for an image and memory over its own; or its 'failure'.
  """
  alone = [seconds(ours.run)[0] for _ in range(repeats)]
  found: dict[str, Any] = {}
  jax_seconds = list(alone)
  for name, make in variants.items():
    try:
      theirs = make()
      of_jax, of_torch = paired(ours.run, theirs.run, repeats)
    except (RuntimeError, MemoryError) as error:
      reason = str(error).strip().partition('\n')[0]
      found[name] = {'failure': f'{type(error).__name__}: {reason}'}
      continue
    jax_seconds += of_jax
    images = theirs.cost.batch / ours.cost.batch
    ratios = images * np.divide(of_jax, of_torch)
    held, theirs_held = ours.cost.memory.bytes, theirs.cost.memory.bytes
    memory_ratio = None
    if held is not None and theirs_held is not None:
      memory_ratio = held / max(theirs_held, 1)
    found[name] = dataclasses.asdict(theirs.cost) | {
      'seconds': float(np.median(of_torch)),
      'timing': {'jax': of_jax, 'torch': of_torch},
      'time_ratio': float(np.median(ratios)),
      'time_quartiles': np.quantile(ratios, (0.25, 0.75)).tolist(),
      'memory_ratio': memory_ratio,
    }
  jax = {'seconds': float(np.median(jax_seconds)), 'alone': alone}
  return {'jax': dataclasses.asdict(ours.cost) | jax, 'opponents': found}


def table(found: Mapping[str, Any]) -> Table:
  """Returns JAX and each variant, with JAX's share of its time and memory."""
  rows, notes = [('JAX', *_numbers(found['jax']), '', '', '')], []
  for name, variant in found['opponents'].items():
    if 'failure' in variant:
      notes.append(f'PyTorch {name}: {variant["failure"]}')
      continue
    low, high = variant['time_quartiles']
    memory = variant['memory_ratio']
    ratios = (
      f'{variant["time_ratio"]:.3f}',
      f'{low:.3f}-{high:.3f}',
      '' if memory is None else f'{memory:.2f}',
    )
    rows.append((f'PyTorch {name}', *_numbers(variant), *ratios))
  notes.append(f"JAX's memory: {found['jax']['memory']['source']}")
  if len(rows) > 1:
    notes.append(
      "time (for an image), quartiles and memory: JAX's over PyTorch's, of "
      'runs in turns'
    )
  return Table('', _HEAD, rows, '\n'.join(notes))


def _numbers(found: Mapping[str, Any]) -> tuple[str, ...]:
  start = found['lower'] + found['compile'] + found['first']
  held = found['memory']['bytes']
  return (
    f'{start:.3g}',
    f'{found["seconds"]:.4g}',
    f'{found["batch"] / found["seconds"]:.3g}',
    '' if held is None else f'{held / _MIB:.0f}',
  )
