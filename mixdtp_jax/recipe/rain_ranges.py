"""Strength and kinds of drawn rain: ranges, and presets of them.

data/rain/draw.py draws it. This file needs no TensorFlow, for configurations.
"""

import dataclasses
from typing import Any, ClassVar

from mixdtp_jax.runtime.options import Options, option

Range = tuple[float, float]


def _range(
  low: float,
  high: float,
  meaning: str,
  unit: str = '',
  *,
  least: float | None = None,
  most: float | None = None,
) -> Any:
  return option(
    (low, high),
    meaning,
    unit=unit,
    least=least,
    most=most,
    form='two numbers, low and high',
  )


@dataclasses.dataclass(frozen=True)
class RainRanges(Options):
  """Ranges (low, high) from which `add_rain` draws values uniformly.

  A strength below 0 counts as 0: with noise = (-0.01, 0.03), a quarter of the
  images have no noise. With `streaks`, `veil`, `drops`, `noise` and `jpeg` all
  at (0, 0), an image is unchanged.
  """

  prefix: ClassVar[str] = 'data.rain.'

  streaks: Range = _range(
    5.0, 50.0, 'lines in all layers together', 'per 10,000 pixels', most=1e4
  )
  angle: Range = _range(
    -35.0,
    35.0,
    "direction of an image's rain; above 0 it falls to the right",
    'degrees from the vertical',
    least=-90,
    most=90,
  )
  spread: Range = _range(
    0.5,
    2.0,
    "standard deviation of the lines' angles",
    'degrees',
    least=0,
    most=90,
  )
  depth: Range = _range(
    1.0,
    3.0,
    "distance of the layers, as a multiple of the nearest drops'",
    least=1,
    most=1e4,
  )
  length: Range = _range(
    15.0, 130.0, 'length of each line at depth 1', 'pixels', least=1, most=1000
  )
  width: Range = _range(
    0.6,
    1.4,
    "standard deviation of the lines' profile at depth 1, for all lines of an "
    'image',
    'pixels',
    least=0.1,
    most=50,
  )
  brightness: Range = _range(
    0.05, 0.6, 'light that each line adds at its peak', least=0, most=1
  )
  occlusion: Range = _range(
    0.0,
    0.3,
    'share of the background that a line of brightness 1 hides',
    least=0,
    most=1,
  )
  veil: Range = _range(
    0.0,
    0.0,
    'optical depth of the haze for each line per 10,000 pixels',
    most=1e4,
  )
  airlight: Range = _range(0.6, 0.9, 'gray value of the haze', least=0, most=1)
  drops: Range = _range(
    0.0, 0.0, 'drops on the lens', 'per 10,000 pixels', most=1e4
  )
  radius: Range = _range(
    4.0, 20.0, 'radius of each drop on the lens', 'pixels', least=1, most=500
  )
  shrink: Range = _range(
    2.0, 5.0, 'factor by which a drop shows the scene smaller', least=1, most=50
  )
  noise: Range = _range(
    0.0,
    0.0,
    "standard deviation of the sensor's noise, for values in [0, 1]",
    most=1e4,
  )
  jpeg: Range = _range(0.0, 0.0, 'loss of JPEG quality, 100 - quality', most=99)

  def __post_init__(self):
    super().__post_init__()
    for field in dataclasses.fields(self):
      low, high = getattr(self, field.name)
      self.require(low <= high, field.name, 'low <= high')


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
