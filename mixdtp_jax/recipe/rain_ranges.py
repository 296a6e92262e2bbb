"""Strength and kinds of drawn rain: ranges, and presets of them.

data/rain/draw.py draws it. This file needs no TensorFlow, for configurations.
"""

import dataclasses
from typing import Any, ClassVar

from mixdtp_jax.runtime.options import Options, option

Range = tuple[float, float]


def _range(
  default: Range,
  limits: tuple[float | None, float],
  meaning: str,
  unit: str = '',
) -> Any:
  least, most = limits
  form = 'two numbers, low and high'
  return option(default, meaning, unit=unit, least=least, most=most, form=form)


@dataclasses.dataclass(frozen=True)
class RainRanges(Options):
  """Ranges (low, high) from which `add_rain` draws values uniformly.

  A strength below 0 counts as 0: with noise = (-0.01, 0.03), a quarter of the
  images have no noise. With `streaks`, `veil`, `drops`, `noise` and `jpeg` all
  at (0, 0), an image is unchanged.
  """

  prefix: ClassVar[str] = 'data.rain.'

  streaks: Range = _range(
    (5.0, 50.0),
    (None, 1e4),
    'lines of all layers together',
    'per 10,000 pixels',
  )
  angle: Range = _range(
    (-35.0, 35.0),
    (-90, 90),
    "direction of an image's rain; above 0 it falls to the right",
    'degrees from the vertical',
  )
  spread: Range = _range(
    (0.5, 2.0), (0, 90), "standard deviation of the lines' angles", 'degrees'
  )
  depth: Range = _range(
    (1.0, 3.0), (1, 1e4), 'distance of layers, as a multiple of the nearest one'
  )
  length: Range = _range(
    (15.0, 130.0), (1, 1000), 'length of each line at depth 1', 'pixels'
  )
  width: Range = _range(
    (0.6, 1.4),
    (0.1, 50),
    "standard deviation of the lines' profile at depth 1, for all lines of an "
    'image',
    'pixels',
  )
  brightness: Range = _range(
    (0.05, 0.6), (0, 1), 'light that each line adds at its peak'
  )
  occlusion: Range = _range(
    (0.0, 0.3), (0, 1), 'share of background that a line of brightness 1 hides'
  )
  veil: Range = _range(
    (0.0, 0.0),
    (None, 1e4),
    'optical depth of the haze for each line per 10,000 pixels',
  )
  airlight: Range = _range((0.6, 0.9), (0, 1), 'gray value of the haze')
  drops: Range = _range(
    (0.0, 0.0), (None, 1e4), 'drops on the lens', 'per 10,000 pixels'
  )
  radius: Range = _range(
    (4.0, 20.0), (1, 500), 'radius of each drop on the lens', 'pixels'
  )
  shrink: Range = _range(
    (2.0, 5.0), (1, 50), 'factor by which a drop shows the scene smaller'
  )
  noise: Range = _range(
    (0.0, 0.0), (None, 1e4), 'standard deviation of noise, for values in [0, 1]'
  )
  jpeg: Range = _range(
    (0.0, 0.0), (None, 99), 'loss of JPEG quality, 100 - quality'
  )

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
