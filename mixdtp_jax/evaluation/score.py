"""Scores of restored images: one row for each image."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from mixdtp_jax.data.eval_batches import EvalBatch
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Images, Score, scores

Scores = dict[str, Score]  # by protocol


@dataclasses.dataclass(frozen=True)
class Row:
  """The scores (floats) of an image before and after it was restored."""

  name: str  # may contain folders, as in 'a/b'
  input: Scores
  restored: Scores


def evaluate(
  restore: Callable[[np.ndarray], Images],
  batches: Iterable[EvalBatch],
  protocols: Sequence[str],
  *,
  save: Callable[[Sequence[str], Images], None] | None = None,
  progress: Callable[[int], None] | None = None,
  inputs: dict[str, Scores] | None = None,
) -> list[Row]:
  """Restores every image, and scores it and its rainy input.

  A restored image that is not finite is named in a warning and scores nan.
  Images are scored and saved in other threads, while the next are restored.

  Args:
    restore: maps images (B, H, W, 3), float32 in [0, 1], to restored images of
      that shape; if they are on a device, they are scored there.
    batches: the images.
    protocols: keys of `metrics.PROTOCOLS`.
    save: called in one of these threads with the names and the restored images
      of each batch, as `restore` returned them.
    progress: called after each batch with the number of images restored.
    inputs: scores of rainy images by name that are known; others are added.

  Returns:
    One row for each image, in the order of the batches.

  Raises:
    ValueError: two images have one name, or there are no images.
  """
  inputs = {} if inputs is None else inputs

  def restored() -> Iterator[tuple[EvalBatch, Images]]:
    names: set[str] = set()
    for batch in batches:
      for name in batch.names:
        if name in names:
          raise ValueError(f'two images have the name {name!r}: rename one')
        names.add(name)
      yield batch, restore(batch.rainy)
      if progress is not None:
        progress(len(names))

  def score(item: tuple[EvalBatch, Images]) -> list[Row]:
    batch, images = item
    new = [i for i, name in enumerate(batch.names) if name not in inputs]
    if new:
      found = _scores(batch.rainy[new], batch.clean[new], protocols)
      inputs.update(zip([batch.names[i] for i in new], found, strict=True))
    rows = []
    found = _scores(images, batch.clean, protocols)
    for name, of_image in zip(batch.names, found, strict=True):
      rows.append(Row(name, inputs[name], of_image))
      if any(np.isnan(score.psnr) for score in of_image.values()):
        logging.warning('%s: restored image not finite, scores nan', name)
    if save is not None:
      save(batch.names, images)
    return rows

  # While the next images are restored.
  rows = [*itertools.chain(*map_in_threads(score, restored(), most=2))]
  if not rows:
    raise ValueError('there are no images to evaluate')
  return rows


def _scores(
  images: Images, clean: Images, protocols: Sequence[str]
) -> list[Scores]:
  """Scores each image of (B, H, W, 3)."""
  found = scores(images, clean, [PROTOCOLS[name] for name in protocols])
  return [
    {
      name: Score(float(score.psnr[i]), float(score.ssim[i]))
      for name, score in zip(protocols, found, strict=True)
    }
    for i in range(len(clean))
  ]


def mean_row(rows: Sequence[Row]) -> Row:
  """Returns a row 'mean' with each score's mean over images, as in papers.

  One pair of identical images makes the mean PSNR inf. ValueError for no rows.
  """
  if not rows:
    raise ValueError('no rows to take the mean of')

  def mean(scores: Sequence[Scores]) -> Scores:
    return {
      name: Score(*map(float, np.mean([s[name] for s in scores], axis=0)))
      for name in scores[0]
    }

  return Row(
    'mean', mean([row.input for row in rows]), mean([r.restored for r in rows])
  )
