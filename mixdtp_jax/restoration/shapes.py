"""Which of a few sizes pieces have: that which wastes least of an image.

A program is compiled for one size of pieces. An image is covered by pieces of
one size, and what they cover beyond it is computed for nothing, so that each
step chooses among a few sizes. A size that no program is compiled for is taken
where there is no other, or once the time that it would have saved so far is
what compiling takes.
"""

import collections
import math
from collections.abc import Callable
from typing import NamedTuple

from mixdtp_jax.restoration import phases
from mixdtp_jax.restoration.pieces import Grid
from mixdtp_jax.restoration.schedule import Step

# Sides of a piece's core by level. Those of a CPU fit into its caches, where
# larger ones were slower; see docs/restoring.md.
_SIDES = (
  (64, 96, 112, 128, 144, 160),
  (32, 56, 64, 80, 96, 112),
  (16, 40, 48, 56, 64, 80),
  (8, 32, 40, 48, 56, 64),
)
# Wide halos and small convolutions alone.
_REFINE_SIDES = (64, 96, 128, 144, 160, 192)
# An accelerator needs larger pieces to be busy.
_TIMES_ON_ACCELERATOR = 4

# Seconds of a CPU core: to start a program; for a pixel and channel of it; to
# compile it. They are estimates that decide nothing but the choice of sizes.
_START = 3e-4
_PER_VALUE = 3e-8
_COMPILE = 0.7


class _Choice(NamedTuple):
  """A size of pieces, and the seconds that it is estimated to take."""

  grid: Grid
  seconds: float


class Shapes:
  """Chooses the sizes of pieces, and remembers what choices have cost."""

  def __init__(self, devices: int, accelerator: bool):
    """Starts without having lost any time.

    Args:
      devices: that compute pieces at the same time.
      accelerator: they are no CPUs.
    """
    self._devices = devices
    self._times = _TIMES_ON_ACCELERATOR if accelerator else 1
    self._lost = collections.Counter()

  def choose(
    self,
    step: Step,
    size: tuple[int, int],
    compiled: Callable[[Grid], bool],
  ) -> Grid:
    """Returns the pieces in which a step computes an image.

    Args:
      step: of the schedule.
      size: rows and columns at the step's level.
      compiled: tells whether there is a program for pieces of a grid.
    """
    refines = step.function is phases.refine
    sides = _REFINE_SIDES if refines else _SIDES[step.level]
    grids = (Grid(size, (s * self._times,) * 2) for s in sides)
    choices = [_Choice(grid, self.seconds(step, grid)) for grid in grids]
    best = min(choices, key=_seconds)
    known = [choice for choice in choices if compiled(choice.grid)]
    if best in known or not known:
      return best.grid
    second = min(known, key=_seconds)
    key = step.function, step.level, step.width, best.grid.core
    self._lost[key] += second.seconds - best.seconds
    return best.grid if self._lost[key] > _COMPILE else second.grid

  def seconds(self, step: Step, grid: Grid) -> float:
    """Estimates how long a step takes."""
    halo = max(halo for _, halo in step.sources)
    # A halo shrinks with every convolution: half of it on both sides.
    rows, columns = (side + halo for side in grid.core)
    groups = math.ceil(len(grid) / self._devices)
    return groups * (rows * columns * step.width * _PER_VALUE + _START)


def _seconds(choice: _Choice) -> float:
  return choice.seconds
