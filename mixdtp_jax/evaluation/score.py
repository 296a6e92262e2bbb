"""Scores of restored images: one row for each image."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from mixdtp_jax.data.eval_batches import EvalBatch
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score

Scores = dict[str, Score]  # by protocol


@dataclasses.dataclass(frozen=True)
class Row:
  """The scores (floats) of an image before and after it was restored."""

  name: str  # may contain folders, as in 'a/b'
  input: Scores
  restored: Scores


def evaluate(
  restore: Callable[[np.ndarray], np.ndarray | jax.Array],
  batches: Iterable[EvalBatch],
  protocols: Sequence[str],
  *,
  save: Callable[[str, np.ndarray], None] | None = None,
  progress: Callable[[int], None] | None = None,
  inputs: dict[str, Scores] | None = None,
) -> list[Row]:
  """Restores every image, and scores it and its rainy input.

  A restored image that is not finite is named in a warning and scores nan.

  Args:
    restore: maps images (B, H, W, 3), float32 in [0, 1], to restored images of
      that shape. These are scored on the device that holds them.
    batches: only the first len(names) images of each count.
    protocols: keys of `metrics.PROTOCOLS`.
    save: called with the name and the restored image (H, W, 3) of each image;
      values that are not finite are 0.
    progress: called after each batch with the number of images done.
    inputs: scores of rainy images by name that are known; others are added.

  Returns:
    One row for each image, in the order of the batches.

  Raises:
    ValueError: two images have one name, or there are no images.
  """
  inputs = {} if inputs is None else inputs
  rows: dict[str, Row] = {}
  for batch in batches:
    restored = restore(batch.rainy)
    if not isinstance(restored, jax.Array):
      restored = jax.device_put(restored)
    clean = jax.device_put(batch.clean, restored.device)
    if not inputs.keys() >= set(batch.names):
      rainy = jax.device_put(batch.rainy, restored.device)
      before = _scores(rainy, clean, protocols)
      inputs |= zip(batch.names, before, strict=False)
    after = _scores(restored, clean, protocols)
    images = None if save is None else np.nan_to_num(jax.device_get(restored))
    for i, name in enumerate(batch.names):
      if name in rows:
        raise ValueError(f'two images have the name {name!r}: rename one')
      rows[name] = Row(name, inputs[name], after[i])
      if np.isnan([*after[i].values()]).any():
        logging.warning('%s: restored image not finite, scores nan', name)
      if images is not None and save is not None:
        save(name, images[i])
    if progress is not None:
      progress(len(rows))
  if not rows:
    raise ValueError('there are no images to evaluate')
  return list(rows.values())


def _scores(
  images: jax.Array, clean: jax.Array, protocols: Sequence[str]
) -> list[Scores]:
  found = jax.device_get(_score(tuple(protocols), images, clean))
  return [
    dict(zip(protocols, (Score(*s) for s in image.tolist()), strict=True))
    for image in found
  ]


@functools.partial(jax.jit, static_argnums=0)
def _score(
  protocols: tuple[str, ...], images: jax.Array, clean: jax.Array
) -> jax.Array:
  """Returns PSNR and SSIM of each image by protocol: (B, protocols, 2)."""
  scores = [jnp.stack(PROTOCOLS[p](images, clean), -1) for p in protocols]
  return jnp.stack(scores, 1)


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
