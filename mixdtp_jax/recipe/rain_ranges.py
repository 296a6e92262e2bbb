"""Strength and kinds of drawn rain: ranges, and presets of them.

data/rain/draw.py draws it. This file needs no TensorFlow, for configurations.
"""

import dataclasses
import math
from collections.abc import Mapping

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class RainRanges:
  """Ranges (low, high) from which `add_rain` draws values uniformly.

  A strength below 0 counts as 0: with noise = (-0.01, 0.03), a quarter of the
  images have no noise. With `streaks`, `veil`, `drops`, `noise` and `jpeg` all
  at (0, 0), an image is unchanged.

  Attributes:
    streaks: lines per 10,000 pixels, in all layers together.
    angle: direction of an image's rain, in degrees from the vertical; above 0
      it falls to the right.
    spread: standard deviation of the lines' angles, in degrees.
    depth: distance of the layers, as a multiple of the nearest drops'.
    length: length of each line at depth 1, in pixels.
    width: standard deviation of the lines' profile at depth 1, in pixels, for
      all lines of an image.
    brightness: light that each line adds at its peak, 0 to 1.
    occlusion: share of the background that a line of brightness 1 hides, 0
      to 1.
    veil: optical depth of the haze for each line per 10,000 pixels.
    airlight: gray value of the haze, 0 to 1.
    drops: drops on the lens per 10,000 pixels.
    radius: radius of each drop on the lens, in pixels.
    shrink: factor by which a drop shows the scene smaller.
    noise: standard deviation of the sensor's noise, for values in [0, 1].
    jpeg: loss of JPEG quality, 100 - quality, at most 99.
  """

  streaks: Range = (5.0, 50.0)
  angle: Range = (-35.0, 35.0)
  spread: Range = (0.5, 2.0)
  depth: Range = (1.0, 3.0)
  length: Range = (15.0, 130.0)
  width: Range = (0.6, 1.4)
  brightness: Range = (0.05, 0.6)
  occlusion: Range = (0.0, 0.3)
  veil: Range = (0.0, 0.0)
  airlight: Range = (0.6, 0.9)
  drops: Range = (0.0, 0.0)
  radius: Range = (4.0, 20.0)
  shrink: Range = (2.0, 5.0)
  noise: Range = (0.0, 0.0)
  jpeg: Range = (0.0, 0.0)

  def __post_init__(self):
    """Converts every range to two floats.

    Raises:
      ValueError: a range is not two ascending numbers within its limits.
    """
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      lowest, highest = _LIMITS.get(field.name, (-math.inf, math.inf))
      try:
        low, high = map(float, value)
        fits = lowest <= low <= high <= highest and high - low < math.inf
      except (TypeError, ValueError):
        fits = False
      if not fits:
        raise ValueError(
          f'rain.{field.name} = {value!r}: needs (low, high) with '
          f'{lowest} <= low <= high <= {highest}, finite'
        )
      object.__setattr__(self, field.name, (low, high))


# Strengths have no lower limit: below 0 they are off.
_LIMITS: dict[str, Range] = {
  'angle': (-90.0, 90.0),
  'spread': (0.0, 90.0),
  'depth': (1.0, math.inf),
  'length': (1.0, 1000.0),
  'width': (0.1, 50.0),
  'brightness': (0.0, 1.0),
  'occlusion': (0.0, 1.0),
  'airlight': (0.0, 1.0),
  'radius': (1.0, 500.0),
  'shrink': (1.0, 50.0),
  'jpeg': (-math.inf, 99.0),
}

# Rain100L adds streaks of one direction to an image, and nothing else. `light`
# follows the quantiles and correlations of its streaks.
PRESETS: dict[str, RainRanges] = {
  'light': RainRanges(),
  'heavy': RainRanges(
    streaks=(80.0, 200.0),
    spread=(1.0, 4.0),
    depth=(1.0, 5.0),
    brightness=(0.05, 0.5),
    occlusion=(0.5, 1.0),
    veil=(0.001, 0.005),
    noise=(-0.005, 0.02),
    jpeg=(-20.0, 30.0),
  ),
  'drops': RainRanges(
    streaks=(-20.0, 20.0),
    drops=(0.5, 3.0),
    noise=(-0.005, 0.02),
    jpeg=(-20.0, 30.0),
  ),
  'mixed': RainRanges(
    streaks=(0.0, 150.0),
    spread=(0.5, 4.0),
    depth=(1.0, 4.0),
    occlusion=(0.0, 1.0),
    veil=(-0.003, 0.003),
    drops=(-2.0, 2.0),
    noise=(-0.02, 0.02),
    jpeg=(-30.0, 30.0),
  ),
}


def as_mapping(ranges: RainRanges) -> dict[str, Range]:
  """Returns the ranges as a mapping, as in `config.data.rain`."""
  return dataclasses.asdict(ranges)


def make_rain_ranges(mapping: Mapping[str, Range]) -> RainRanges:
  """Makes the ranges of a mapping with exactly their names.

  Raises:
    ValueError: a name is missing or unknown, or a range does not fit.
  """
  values = dict(mapping)
  names = {field.name for field in dataclasses.fields(RainRanges)}
  if unknown := sorted(set(values) - names):
    raise ValueError(f'unknown ranges of rain: {", ".join(unknown)}')
  if missing := sorted(names - set(values)):
    raise ValueError(f'missing ranges of rain: {", ".join(missing)}')
  return RainRanges(**values)
