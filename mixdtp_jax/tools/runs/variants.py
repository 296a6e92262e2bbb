"""Compares variants of a recipe that were trained with several seeds each."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from mixdtp_jax.runtime.tables import Table
from mixdtp_jax.tools.runs.run_folder import Run


@dataclasses.dataclass(frozen=True)
class Variant:
  """Runs whose options are equal, except for the seed."""

  name: str  # the options that differ from those of the first variant
  seeds: tuple[int, ...]
  psnr: float  # mean over the seeds, in dB
  ssim: float  # likewise
  # PSNR above the first variant's with the same seed: the mean in dB, and half
  # the width of its 95 % interval. None for the first variant itself.
  gain: float | None = None
  interval: float | None = None

  @property
  def finding(self) -> str:
    """What the interval tells: 'better', 'worse' or 'not decided'."""
    if self.gain is None or self.interval is None:
      return ''
    if abs(self.gain) <= self.interval:
      return 'not decided'
    return 'better' if self.gain > 0 else 'worse'


def find_variants(
  runs: Sequence[Run], options: dict[str, list[Any]], protocol: str
) -> list[Variant]:
  """Groups finished runs that differ in nothing but the seed.

  Args:
    runs: The first one belongs to the variant that others are compared with.
    options: Those that differ: their value in each run.
    protocol: Name of the protocol of the scores.

  Returns:
    The variants that share two seeds or more with the first one, and the first
    one itself; none if there is no other.
  """
  groups: dict[str, dict[int, Run]] = {}
  for index, run in enumerate(runs):
    changes = [
      f'{name}={values[index]}'
      for name, values in options.items()
      if name != 'seed' and values[index] != values[0]
    ]
    if run.final:
      name = ' '.join(changes) or 'base'
      groups.setdefault(name, {})[run.config['seed']] = run
  base = groups.get('base', {})
  variants = []
  for name, of_seed in groups.items():
    seeds = tuple(sorted(of_seed.keys() & base.keys()))
    if len(seeds) < 2:
      continue
    scores = np.array([of_seed[seed].restored[protocol] for seed in seeds])
    variant = Variant(name, seeds, *map(float, scores.mean(axis=0)))
    if of_seed is not base:
      psnr = [base[seed].restored[protocol].psnr for seed in seeds]
      gain, interval = _paired(scores[:, 0] - psnr)
      variant = dataclasses.replace(variant, gain=gain, interval=interval)
    variants.append(variant)
  return variants if len(variants) > 1 else []


def _paired(gains: np.ndarray) -> tuple[float, float]:
  """Returns the mean of differences and its interval by Student's t."""
  error = gains.std(ddof=1) / math.sqrt(len(gains))
  factor = special.stdtrit(len(gains) - 1, 0.975)
  return float(gains.mean()), float(factor * error)


def variants_table(variants: Sequence[Variant], protocol: str) -> Table:
  """Returns a row for each variant."""
  rows = [
    [
      variant.name,
      ' '.join(map(str, variant.seeds)),
      f'{variant.psnr:.3f} / {variant.ssim:.4f}',
      '' if variant.gain is None else f'{variant.gain:+.3f}',
      '' if variant.interval is None else f'± {variant.interval:.3f}',
      variant.finding,
    ]
    for variant in variants
  ]
  return Table(
    'Variants, each with the same seeds',
    ('variant', 'seeds', 'PSNR / SSIM', 'gain', '95 %', 'finding'),
    rows,
    f'Means over the seeds; PSNR in dB; protocol {protocol}. gain: PSNR above '
    'the base with the same seed.',
  )
