"""Which size pieces have: the one that wastes least of an image.

A program is compiled for one size of pieces. An image is covered by pieces of
one size, and what they cover beyond it is computed for nothing, so each step
chooses among many sizes. It takes a size without a program if there is no
other, and as soon as that size would have saved the time that compiling takes.
"""

import collections
import itertools
import math
from collections.abc import Set

from mixdtp_jax.restoration import phases
from mixdtp_jax.restoration.pieces import Grid
from mixdtp_jax.restoration.steps import Step

# Sides of the core of a piece: of each level, and of the refinement, which has
# wide halos. On a CPU larger pieces gain nothing (docs/restoring.md).
_SIDES = tuple(
  tuple(range(step, 12 * step + 1, step)) for step in (16, 12, 8, 6)
)
_REFINE_SIDES = (32, *range(64, 257, 16))
# An accelerator needs larger pieces to be busy.
_TIMES_ON_ACCELERATOR = 4
# Of each side as many are looked at, the best ones.
_TRIED = 4

# Seconds of a CPU core: to start a program; for a pixel and channel of it; to
# compile it. They are rough, and nothing but these choices depends on them.
_START, _PER_VALUE, _COMPILE = 1.5e-4, 2e-8, 0.15


class Shapes:
  """Chooses the sizes of pieces, and remembers what choices have cost."""

  def __init__(self, devices: int, accelerator: bool):
    """Takes the number of devices, and whether they are no CPUs."""
    self._devices = devices
    self._times = _TIMES_ON_ACCELERATOR if accelerator else 1
    self._lost: dict[tuple, float] = collections.defaultdict(float)

  def choose(
    self, step: Step, size: tuple[int, int], compiled: Set[tuple[int, int]]
  ) -> Grid:
    """Returns the pieces in which a step computes an image.

    `size` is the image's at the step's level; `compiled` are the cores that
    have programs.
    """
    best = self._best(step, size)
    if not compiled or best.core in compiled:
      return best
    known = self._best(step, size, compiled)
    lost = self.seconds(step, known) - self.seconds(step, best)
    return best if self._lost[_kind(step, best)] + lost > _COMPILE else known

  def count(self, step: Step, grid: Grid) -> None:
    """Remembers what taking these pieces costs, beside the best ones."""
    best = self._best(step, grid.size)
    lost = self.seconds(step, grid) - self.seconds(step, best)
    self._lost[_kind(step, best)] += lost

  def seconds(self, step: Step, grid: Grid) -> float:
    """Estimates how long a step takes."""
    # A halo shrinks with every convolution: half of it on both sides.
    rows, columns = (side + step.halo for side in grid.core)
    groups = math.ceil(len(grid) / self._devices)
    return groups * (rows * columns * step.width * _PER_VALUE + _START)

  def _best(self, step, size, cores=None) -> Grid:
    cores = cores or itertools.product(*self._sides(step, size))
    grids = (Grid(size, core) for core in cores)
    return min(grids, key=lambda grid: self.seconds(step, grid))

  def _sides(self, step, size) -> list[list[int]]:
    """Returns the best rows and columns of a core, each by itself."""
    refines = step.function is phases.refine
    sides = _REFINE_SIDES if refines else _SIDES[step.level]
    # Starting a program costs as much as some more pixels on each side.
    more = step.halo + 4
    cores = [self._times * side for side in sides]

    def best(whole: int) -> list[int]:
      def covered(side: int) -> int:
        return math.ceil(whole / side) * (side + more)

      return sorted(cores, key=covered)[:_TRIED]

    return [best(whole) for whole in size]


def _kind(step: Step, grid: Grid):
  return step.function, step.level, step.width, grid.core
