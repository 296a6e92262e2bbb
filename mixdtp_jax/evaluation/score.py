"""Scores of restored images: one row for each image.

Nothing here knows a network: callers pass a `restore` function.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mixdtp_jax.data.eval_batches import EvalBatch
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score


@dataclasses.dataclass(frozen=True)
class Row:
  """The scores of one image (floats), by protocol.

  Attributes:
    name: the image's name; may contain folders, as in 'a/b'.
    input: scores of the rainy image.
    restored: scores of the restored image.
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
  """Restores every image, and scores it and its rainy input.

  Args:
    restore: a function of images (B, H, W, 3), float32 in [0, 1], to restored
      images of the same shape.
    batches: see `data.eval_batches`; only the first len(names) images of a
      batch count.
    protocols: keys of `metrics.PROTOCOLS`.
    save: called with the name and the restored image (H, W, 3) of each image.
    progress: called after each batch with the number of images done.

  Returns:
    One row for each image, in the order of the batches.

  Raises:
    ValueError: a protocol is unknown, two images have one name, or there are
      no images.
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
  """Returns the scores of each image of a batch, by protocol."""
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
  """Returns a row 'mean' with each score's mean over images, as in papers.

  One pair of identical images makes the mean PSNR inf.

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
