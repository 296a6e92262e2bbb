"""Times JAX beside variants in PyTorch that do the same work."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixdtp_jax.measure.timed import Cost, Timed
from mixdtp_jax.measure.timing import Timing, paired, seconds
from mixdtp_jax.runtime.tables import Table


@dataclasses.dataclass(frozen=True)
class Variant:
  """A variant in PyTorch that ran.

  Attributes:
    cost: of its start and its memory.
    timing: warm runs in turns; a is JAX, b the variant.
  """

  cost: Cost
  timing: Timing


@dataclasses.dataclass(frozen=True)
class Comparison:
  """JAX and all variants.

  Attributes:
    cost: of JAX.
    alone: seconds of JAX's warm runs before any variant was made.
    variants: those that ran, by name.
    failures: why the others did not, one line each, by name.
  """

  cost: Cost
  alone: tuple[float, ...]
  variants: dict[str, Variant]
  failures: dict[str, str]

  @property
  def seconds(self) -> float:
    """Median of JAX's warm runs, alone and in turns."""
    times = [variant.timing.a for variant in self.variants.values()]
    return float(np.median(np.concatenate([self.alone, *times])))

  def time_ratio(self, name: str) -> tuple[float, tuple[float, float]]:
    """JAX's time for an image over a variant's: median and quartiles."""
    variant = self.variants[name]
    factor = variant.cost.batch / self.cost.batch
    low, high = variant.timing.spread
    return factor * variant.timing.ratio, (factor * low, factor * high)

  def memory_ratio(self, name: str) -> float | None:
    """JAX's peak memory over a variant's; None if unknown."""
    ours, theirs = self.cost.memory, self.variants[name].cost.memory
    if ours.bytes is None or theirs.bytes is None:
      return None
    return ours.bytes / max(theirs.bytes, 1)


def compare(
  ours: Timed, variants: Mapping[str, Callable[[], Timed]], repeats: int
) -> Comparison:
  """Times JAX alone, then in turns with each variant.

  Args:
    ours: JAX.
    variants: functions that prepare the variants, by name. Each is called when
      its turn has come. Its RuntimeError, which PyTorch raises if it finds no
      compiler, or MemoryError becomes a failure.
    repeats: timed runs alone, and in turns with each variant.
  """
  alone = tuple(seconds(ours.run)[0] for _ in range(repeats))
  found, failures = {}, {}
  for name, make in variants.items():
    try:
      theirs = make()
      timing = paired(ours.run, theirs.run, repeats)
      found[name] = Variant(theirs.cost, timing)
    except (RuntimeError, MemoryError) as error:
      lines = [line.strip() for line in str(error).splitlines()]
      reason = next(filter(None, lines), '')
      failures[name] = f'{type(error).__name__}: {reason}'
  return Comparison(ours.cost, alone, found, failures)


def content(found: Comparison) -> dict[str, Any]:
  """Returns everything, for JSON."""
  variants = {
    name: _cost(variant.cost)
    | {
      'seconds': variant.timing.median_b,
      'timing': {'jax': variant.timing.a, 'torch': variant.timing.b},
      'time_ratio': found.time_ratio(name)[0],
      'time_quartiles': found.time_ratio(name)[1],
      'memory_ratio': found.memory_ratio(name),
    }
    for name, variant in found.variants.items()
  }
  failures = {name: {'failure': text} for name, text in found.failures.items()}
  jax = {'seconds': found.seconds, 'alone': found.alone}
  return {'jax': _cost(found.cost) | jax, 'opponents': variants | failures}


def _cost(cost: Cost) -> dict[str, Any]:
  return dataclasses.asdict(cost) | {'memory': cost.memory._asdict()}


def table(found: Comparison) -> Table:
  """Returns JAX and each variant, with JAX's share of its time and memory."""
  rows = [('JAX', *_numbers(found.cost, found.seconds), '', '', '')]
  for name, variant in found.variants.items():
    ratio, (low, high) = found.time_ratio(name)
    memory = found.memory_ratio(name)
    rows.append(
      (
        f'PyTorch {name}',
        *_numbers(variant.cost, variant.timing.median_b),
        f'{ratio:.3f}',
        f'{low:.3f}-{high:.3f}',
        '' if memory is None else f'{memory:.2f}',
      )
    )
  notes = [f'PyTorch {name}: {why}' for name, why in found.failures.items()]
  notes.append(f"JAX's memory: {found.cost.memory.source}")
  if found.variants:
    notes.append(
      "time (for an image), quartiles and memory: JAX's over PyTorch's, of "
      'runs in turns'
    )
  head = ('', 'start s', 'run s', 'images/s', 'MiB')
  ratios = ('time', 'quartiles', 'memory')
  return Table('', (*head, *ratios), rows, '\n'.join(notes))


def _numbers(cost: Cost, run: float) -> tuple[str, ...]:
  held = cost.memory.bytes
  return (
    f'{cost.start:.3g}',
    f'{run:.4g}',
    f'{cost.batch / run:.3g}',
    '' if held is None else f'{held / 2**20:.0f}',
  )
