"""What the folder of a training run tells, finished or not."""

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
  """What a run's folder tells, finished or not.

  Attributes:
    name: of the run in tables.
    workdir: the run's folder.
    config: of its newest checkpoint, dotted name -> value.
    parameters: how many numbers are trained.
    scalars: what was logged.
    final: whether `input` and `restored` are the results of the last update.
    images: test images behind the scores; None is all that there are.
    input: mean scores of the rainy images by protocol; empty before the first
      evaluation.
    restored: the same of the restored ones.
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
    """The last update that was logged."""
    return max(points[-1].step for points in self.scalars.values())

  @property
  def minutes(self) -> float:
    """Minutes of training, see `event_log.read_scalars`."""
    return max(points[-1].minutes for points in self.scalars.values())

  @property
  def evaluated(self) -> int | None:
    """The update after which it was evaluated last."""
    return max(
      (
        points[-1].step
        for name, points in self.scalars.items()
        if name.startswith('eval/')
      ),
      default=None,
    )

  def curve(self, protocol: str) -> tuple[float, list[Point]]:
    """PSNR (dB) while training: of the rainy images, and of the restored ones.

    The last evaluation is of all test images; where those before were of a
    part, it is not on their curve. Without evaluations: (nan, []).
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
  """Whether scores are equal but for the rounding of another device."""
  return math.isclose(one, other, rel_tol=1e-4)


def _tag(which: str, protocol: str, field: str) -> str:
  return f'eval/{which}_{protocol}_{field}'


def read_run(workdir: str | os.PathLike, name: str) -> Run:
  """Reads a run's folder, and changes nothing in it.

  Raises:
    FileNotFoundError: it has no checkpoint, or no metrics.
    ValueError: its files are damaged or of another version.
  """
  try:
    config = load_run_config(workdir)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{workdir}: no training run with a checkpoint there; give the workdir '
      'of train.py, and wait until it has saved one'
    ) from error
  try:
    parameters = _count_parameters(config)
  except ValueError as error:
    raise ValueError(f'{workdir}: {error}') from error
  scalars = read_scalars(workdir)
  updates = max(points[-1].step for points in scalars.values())
  results = _final_results(workdir, updates)
  if results is None:
    images = config.eval_images or None
    scores = {which: _logged(scalars, which) for which in ('input', 'restored')}
  else:
    images = len(results['images'])
    scores = {
      which: {
        protocol: Score(float(score['psnr']), float(score['ssim']))
        for protocol, score in results['mean'][which].items()
      }
      for which in ('input', 'restored')
    }
  return Run(
    name=name,
    workdir=str(workdir),
    config=config_file.flat_config(config),
    parameters=parameters,
    scalars=scalars,
    final=results is not None,
    images=images,
    **scores,
  )


def _final_results(workdir, updates) -> dict[str, Any] | None:
  """results.json, unless the run went on after it was written."""
  path = pathlib.Path(workdir, 'results', 'results.json')
  if not path.is_file():
    return None
  results = json.loads(path.read_text())
  # What eval.py writes there has no step.
  step = results['context'].get('step', -1)
  return results if step >= updates else None


def _logged(scalars, which) -> dict[str, Score]:
  """The newest logged scores by protocol."""
  newest = {name: points[-1].value for name, points in scalars.items()}
  return {
    protocol: Score(
      *(newest[_tag(which, protocol, field)] for field in Score._fields)
    )
    for protocol in PROTOCOLS
    if _tag(which, protocol, 'psnr') in newest
  }


def _count_parameters(config: ml_collections.ConfigDict) -> int:
  params = abstract_params(make_model_config(config.model))
  return sum(leaf.size for leaf in jax.tree.leaves(params))
