"""JAX against opponents that do the same work, one after the other."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixdtp_jax.measure.timed import Cost, Timed
from mixdtp_jax.measure.timing import Timing, paired, seconds


@dataclasses.dataclass(frozen=True)
class Lap:
  """One opponent beside JAX.

  Attributes:
    opponent: its name.
    cost: its own; None where it could not run.
    timing: warm runs in turns; a is JAX, b the opponent.
    failure: why it could not run, one line; '' where it could.
  """

  opponent: str
  cost: Cost | None = None
  timing: Timing | None = None
  failure: str = ''


@dataclasses.dataclass(frozen=True)
class Race:
  """JAX and all opponents.

  Attributes:
    cost: of JAX.
    alone: seconds of its warm runs before any opponent was made.
    laps: the opponents.
  """

  cost: Cost
  alone: tuple[float, ...]
  laps: tuple[Lap, ...]

  @property
  def seconds(self) -> float:
    """Median of JAX's warm runs, alone and in turns."""
    laps = (lap.timing.a for lap in self.laps if lap.timing)
    return float(np.median(np.concatenate([self.alone, *laps])))


def race(
  ours: Timed,
  opponents: Mapping[str, Callable[[], Timed]],
  repeats: int,
) -> Race:
  """Times JAX alone, then in turns with each opponent.

  An opponent is made when it is its turn, and let go after it.

  Args:
    ours: JAX.
    opponents: how each is made, by name. A RuntimeError, which is what PyTorch
      raises where it finds no compiler, or a MemoryError is noted.
    repeats: timed runs of each, in each lap.
  """
  if repeats < 1:
    raise ValueError(f'--repeats {repeats}: needs at least 1')
  alone = tuple(seconds(ours.run)[0] for _ in range(repeats))
  laps = [_lap(ours, *item, repeats) for item in opponents.items()]
  return Race(ours.cost, alone, tuple(laps))


def _lap(ours, name, make, repeats) -> Lap:
  try:
    theirs = make()
    timing = paired(ours.run, theirs.run, repeats)
  except (RuntimeError, MemoryError) as error:
    return Lap(name, failure=first_line(error))
  return Lap(name, theirs.cost, timing)


def first_line(error: Exception) -> str:
  """The kind of an error, and the first line of what it says."""
  lines = [line for line in str(error).splitlines() if line.strip()]
  return f'{type(error).__name__}: {lines[0].strip() if lines else ""}'


def per_image(race: Race, lap: Lap) -> tuple[float, tuple[float, float]]:
  """JAX's time over the opponent's for an image: median and quartiles."""
  factor = lap.cost.batch / race.cost.batch
  low, high = lap.timing.spread
  return factor * lap.timing.ratio, (factor * low, factor * high)


def content(race: Race) -> dict[str, Any]:
  """All of it, for JSON."""
  return {
    'jax': _cost(race.cost) | {'seconds': race.seconds, 'alone': race.alone},
    'opponents': {lap.opponent: _opponent(race, lap) for lap in race.laps},
  }


def _opponent(race: Race, lap: Lap) -> dict[str, Any]:
  if lap.failure:
    return {'failure': lap.failure}
  ratio, quartiles = per_image(race, lap)
  return _cost(lap.cost) | {
    'seconds': lap.timing.median_b,
    'timing': {'jax': lap.timing.a, 'torch': lap.timing.b},
    'time_ratio': ratio,
    'time_quartiles': quartiles,
    'memory_ratio': _memory_ratio(race.cost, lap.cost),
  }


def _cost(cost: Cost) -> dict[str, Any]:
  return dataclasses.asdict(cost) | {'memory': cost.memory._asdict()}


def _memory_ratio(ours: Cost, theirs: Cost) -> float | None:
  if None in (ours.memory.bytes, theirs.memory.bytes):
    return None
  return ours.memory.bytes / max(theirs.memory.bytes, 1)


def format_race(race: Race) -> str:
  """A table: JAX, and each opponent with JAX's share of its time and memory."""
  head = ('', 'start s', 'run s', 'images/s', 'MiB')
  lines = [_line(*head, 'time', 'quartiles', 'memory')]
  lines.append(_line('JAX', *_numbers(race.cost, race.seconds)))
  for lap in race.laps:
    name = f'PyTorch {lap.opponent}'
    if lap.failure:
      lines.append(f'{name}: {lap.failure}')
      continue
    ratio, (low, high) = per_image(race, lap)
    memory = _memory_ratio(race.cost, lap.cost)
    lines.append(
      _line(
        name,
        *_numbers(lap.cost, lap.timing.median_b),
        f'{ratio:.3f}',
        f'{low:.3f}-{high:.3f}',
        '-' if memory is None else f'{memory:.2f}',
      )
    )
  notes = [f"JAX's memory: {race.cost.memory.source}"]
  if race.laps:
    notes.append(
      "time (of an image), quartiles and memory: JAX's over PyTorch's, runs "
      'in turns'
    )
  return '\n'.join(lines + notes)


def _line(name, *cells) -> str:
  widths = (9, 9, 9, 7, 7, 12, 7)
  cells = (f' {c:>{w}}' for c, w in zip(cells, widths, strict=False))
  return f'{name:<18}' + ''.join(cells)


def _numbers(cost: Cost, run: float) -> tuple[str, ...]:
  held = cost.memory.bytes
  return (
    f'{cost.start:.3g}',
    f'{run:.4g}',
    f'{cost.batch / run:.3g}',
    '-' if held is None else f'{held / 2**20:.0f}',
  )
