"""Reads the folder of a training run, finished or not."""

import dataclasses
import math
import os
import pathlib
from typing import Any

import jax

from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score
from mixdtp_jax.evaluation.score import Scores
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.recipe import config_file
from mixdtp_jax.runtime.files import DAMAGED, load_json
from mixdtp_jax.tools.runs.event_log import Point, read_scalars
from mixdtp_jax.weights.run import load_run_config

_WHICH = ('input', 'restored')


@dataclasses.dataclass(frozen=True)
class Run:
  """A training run, finished or not."""

  name: str  # in tables
  workdir: str
  config: dict[str, Any]  # of the newest checkpoint, by dotted name
  parameters: int  # number of trained values
  scalars: dict[str, list[Point]]  # logged values by name
  final: bool  # whether the scores are of the last update
  images: int | None  # test images behind the scores; None for all
  input: Scores  # means of the rainy images; empty before the first evaluation
  restored: Scores  # likewise

  @property
  def last(self) -> Point:
    """The last logged update, with the minutes until then."""
    return max(points[-1] for points in self.scalars.values())

  @property
  def evaluated(self) -> int | None:
    """The update of the last evaluation; None before the first one."""
    steps = (
      points[-1].step
      for name, points in self.scalars.items()
      if name.startswith('eval/')
    )
    return max(steps, default=None)

  def curve(self, protocol: str) -> tuple[float, list[Point]]:
    """Returns the PSNR in dB of the rainy images, and the restored ones' curve.

    The last evaluation is not on the curve if it used all test images and the
    earlier ones only a part. Without evaluations: (nan, []).
    """
    rainy, restored = (
      self.scalars.get(f'eval/{which}_{protocol}_psnr', []) for which in _WHICH
    )
    first = rainy[0].value if rainy else math.nan
    return first, [
      point
      for before, point in zip(rainy, restored, strict=True)
      if same_score(before.value, first)
    ]


def same_score(one: float, other: float) -> bool:
  """Returns whether scores are equal up to the rounding of a device."""
  return math.isclose(one, other, rel_tol=1e-4)


def read_run(workdir: str | os.PathLike, name: str) -> Run:
  """Reads a run's folder, and changes nothing in it.

  FileNotFoundError if it has no checkpoint or no metrics, ValueError if files
  are damaged or of another version.
  """
  try:
    config = load_run_config(workdir)
    params = abstract_params(make_model_config(config['model']))
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{workdir}: no training run with a checkpoint there; give the workdir '
      'of mixdtp train, and wait until it has saved one'
    ) from error
  except ValueError as error:
    raise ValueError(f'{workdir}: {error}') from error
  scalars = read_scalars(workdir)
  updates = max(points[-1].step for points in scalars.values())
  final = _final(workdir, updates)
  images, scores = final or (config['eval_images'] or None, _logged(scalars))
  return Run(
    name,
    str(workdir),
    config_file.flat_config(config),
    sum(leaf.size for leaf in jax.tree.leaves(params)),
    scalars,
    final is not None,
    images,
    *scores,
  )


def _final(
  workdir: str | os.PathLike, updates: int
) -> tuple[int, list[Scores]] | None:
  """Reads results.json, if it is of the last update: images, mean scores."""
  path = pathlib.Path(workdir, 'results', 'results.json')
  if not path.is_file():
    return None
  try:
    results = load_json(path)
    # mixdtp eval, which may have written it, names no step that is a number.
    step = results['context'].get('step')
    if type(step) is not int or step < updates:
      return None
    return len(results['images']), [
      {
        protocol: Score(float(score['psnr']), float(score['ssim']))
        for protocol, score in results['mean'][which].items()
      }
      for which in _WHICH
    ]
  except DAMAGED:
    raise ValueError(
      f'{path} is damaged: remove it, or start the training command again, '
      'which writes it again'
    ) from None


def _logged(scalars: dict[str, list[Point]]) -> list[Scores]:
  """Returns the newest logged scores before and after restoring."""
  newest = {name: points[-1].value for name, points in scalars.items()}
  return [
    {
      protocol: Score(
        *(newest.get(f'eval/{which}_{protocol}_{f}') for f in Score._fields)
      )
      for protocol in PROTOCOLS
      if f'eval/{which}_{protocol}_psnr' in newest
    }
    for which in _WHICH
  ]
