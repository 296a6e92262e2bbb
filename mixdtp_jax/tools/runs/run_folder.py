"""Reads the folder of a training run, finished or not."""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

import jax
import ml_collections

from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score
from mixdtp_jax.models.config import make_model_config
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.recipe import config_file
from mixdtp_jax.tools.runs.event_log import Point, read_scalars
from mixdtp_jax.weights.run import load_run_config


@dataclasses.dataclass(frozen=True)
class Run:
  """A training run, finished or not.

  Attributes:
    name: name in tables.
    workdir: folder.
    config: recipe of the newest checkpoint, {dotted name: value}.
    parameters: number of trained values.
    scalars: logged values by name.
    final: whether the scores are of the last update.
    images: number of test images behind the scores; None for all.
    input: mean scores of the rainy images by protocol; empty before the first
      evaluation.
    restored: mean scores of the restored images, likewise.
  """

  name: str
  workdir: str
  config: dict[str, Any]
  parameters: int
  scalars: dict[str, list[Point]]
  final: bool
  images: int | None
  input: dict[str, Score]
  restored: dict[str, Score]

  @property
  def updates(self) -> int:
    """The last logged update."""
    return max(points[-1].step for points in self.scalars.values())

  @property
  def minutes(self) -> float:
    """Minutes of training, see `event_log.read_scalars`."""
    return max(points[-1].minutes for points in self.scalars.values())

  @property
  def evaluated(self) -> int | None:
    """The update of the last evaluation; None before the first one."""
    return max(
      (
        points[-1].step
        for name, points in self.scalars.items()
        if name.startswith('eval/')
      ),
      default=None,
    )

  def curve(self, protocol: str) -> tuple[float, list[Point]]:
    """Returns the PSNR in dB of the rainy images, and the restored ones' curve.

    The last evaluation is not on the curve if it used all test images and the
    earlier ones only a part. Without evaluations: (nan, []).
    """
    rainy = self.scalars.get(_tag('input', protocol, 'psnr'), [])
    restored = self.scalars.get(_tag('restored', protocol, 'psnr'), [])
    first = rainy[0].value if rainy else math.nan
    return first, [
      point
      for before, point in zip(rainy, restored, strict=True)
      if same_score(before.value, first)
    ]


def same_score(one: float, other: float) -> bool:
  """Returns whether scores are equal up to the rounding of a device."""
  return math.isclose(one, other, rel_tol=1e-4)


def _tag(which: str, protocol: str, field: str) -> str:
  return f'eval/{which}_{protocol}_{field}'


def read_run(workdir: str | os.PathLike, name: str) -> Run:
  """Reads a run's folder, and changes nothing in it.

  Raises:
    FileNotFoundError: there is no checkpoint, or there are no metrics.
    ValueError: files are damaged or of another version.
  """
  try:
    config = load_run_config(workdir)
    parameters = _count_parameters(config)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{workdir}: no training run with a checkpoint there; give the workdir '
      'of mixdtp train, and wait until it has saved one'
    ) from error
  except ValueError as error:
    raise ValueError(f'{workdir}: {error}') from error
  scalars = read_scalars(workdir)
  updates = max(points[-1].step for points in scalars.values())
  results = _final_results(workdir, updates)
  if results is None:
    images = config.eval_images or None
    scores = [_logged(scalars, which) for which in ('input', 'restored')]
  else:
    images = len(results['images'])
    scores = [
      {
        protocol: Score(float(score['psnr']), float(score['ssim']))
        for protocol, score in results['mean'][which].items()
      }
      for which in ('input', 'restored')
    ]
  return Run(
    name,
    str(workdir),
    config_file.flat_config(config),
    parameters,
    scalars,
    results is not None,
    images,
    *scores,
  )


def _count_parameters(config: ml_collections.ConfigDict) -> int:
  params = abstract_params(make_model_config(config.model))
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _final_results(workdir, updates) -> dict[str, Any] | None:
  """Returns results.json, unless it is older than the last update."""
  path = pathlib.Path(workdir, 'results', 'results.json')
  if not path.is_file():
    return None
  results = json.loads(path.read_text())
  # mixdtp eval may have written it, without a step.
  step = results['context'].get('step', -1)
  return results if step >= updates else None


def _logged(scalars, which) -> dict[str, Score]:
  """Returns the newest logged scores by protocol."""
  newest = {name: points[-1].value for name, points in scalars.items()}
  return {
    protocol: Score(
      *(newest[_tag(which, protocol, field)] for field in Score._fields)
    )
    for protocol in PROTOCOLS
    if _tag(which, protocol, 'psnr') in newest
  }
