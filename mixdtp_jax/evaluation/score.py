"""Scores of restored images: a restore function in, one row an image out.

Nothing here knows a network. Training's own evaluation, eval.py, the
baselines and a comparison with PyTorch all pass their `restore` function.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mixdtp_jax.data.eval_batches import EvalBatch
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score


@dataclasses.dataclass(frozen=True)
class Row:
  """Scores of one image (floats) under each protocol, by its name.

  Attributes:
    name: the image's name; may have folders, 'a/b'.
    input: of the rainy image as it is.
    restored: of the restored image.
  """

  name: str
  input: dict[str, Score]
  restored: dict[str, Score]


def evaluate(
  restore: Callable[[np.ndarray], np.ndarray],
  batches: Iterable[EvalBatch],
  protocols: Sequence[str],
  *,
  save: Callable[[str, np.ndarray], None] | None = None,
  progress: Callable[[int], None] | None = None,
) -> list[Row]:
  """Restores every image and scores it beside its rainy input.

  Args:
    restore: (B, H, W, 3) float32 in [0, 1] -> the same.
    batches: as `pipeline.eval_batches` gives them; only the first len(names)
      images of a batch count.
    protocols: keys of `metrics.PROTOCOLS`.
    save: called with the name and the restored image (H, W, 3) of each image.
    progress: called after each batch with the number of images done.

  Returns:
    One row an image, in the order of the batches.

  Raises:
    ValueError: a protocol is unknown, a name comes twice, or there are no
      images.
  """
  if unknown := [name for name in protocols if name not in PROTOCOLS]:
    raise ValueError(
      f'unknown protocols: {", ".join(unknown)}; known: {", ".join(PROTOCOLS)}'
    )
  rows = {}
  for batch in batches:
    restored = restore(batch.rainy)
    before = _scores(batch.rainy, batch.clean, protocols)
    after = _scores(restored, batch.clean, protocols)
    for i, name in enumerate(batch.names):
      if name in rows:
        raise ValueError(f'two images have the name {name!r}: rename one')
      rows[name] = Row(name, before[i], after[i])
      if save is not None:
        save(name, restored[i])
    if progress is not None:
      progress(len(rows))
  if not rows:
    raise ValueError('there are no images to evaluate')
  return list(rows.values())


def _scores(
  images: np.ndarray, clean: np.ndarray, protocols: Sequence[str]
) -> list[dict[str, Score]]:
  """For each image of a batch, its scores by protocol."""
  batch = {
    name: Score(*map(np.asarray, PROTOCOLS[name](images, clean)))
    for name in protocols
  }
  return [
    {
      name: Score(float(score.psnr[i]), float(score.ssim[i]))
      for name, score in batch.items()
    }
    for i in range(len(clean))
  ]


def mean_row(rows: Sequence[Row]) -> Row:
  """The row 'mean': each score's mean over images, as papers report it.

  A data set with one identical pair has a mean PSNR of inf.

  Raises:
    ValueError: there are no rows.
  """
  if not rows:
    raise ValueError('no rows to take the mean of')

  def mean(scores: Sequence[dict[str, Score]]) -> dict[str, Score]:
    return {
      name: Score(*map(float, np.mean([s[name] for s in scores], axis=0)))
      for name in scores[0]
    }

  return Row(
    'mean', mean([row.input for row in rows]), mean([r.restored for r in rows])
  )
