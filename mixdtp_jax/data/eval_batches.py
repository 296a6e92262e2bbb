"""Batches of whole images, for evaluation."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mixdtp_jax.data.pairs import Pairs


class EvalBatch(NamedTuple):
  """Whole images of one shape, of which only the first len(names) count.

  Attributes:
    rainy: (B, H, W, 3) float32 in [0, 1].
    clean: (B, H, W, 3) float32 in [0, 1].
    names: names of the images, at most B.
  """

  rainy: np.ndarray
  clean: np.ndarray
  names: tuple[str, ...]


def eval_batches(
  pairs: Pairs, *, batch_size: int, limit: int = 0
) -> Iterator[EvalBatch]:
  """Yields whole images in batches of one shape.

  Shapes come in the order of their first image.

  Args:
    pairs: the images, which are decoded one batch at a time.
    batch_size: B of every batch; the last batch of a shape repeats its last
      image.
    limit: take only so many of the first images; 0 takes all.
  """
  groups: dict[tuple[int, int], list[int]] = {}
  for index in range(min(len(pairs), limit or len(pairs))):
    groups.setdefault(pairs.shape(index), []).append(index)
  for indices in groups.values():
    for start in range(0, len(indices), batch_size):
      yield _eval_batch(
        [pairs[i] for i in indices[start : start + batch_size]], batch_size
      )


def _eval_batch(images: list[dict], batch_size: int) -> EvalBatch:
  names = tuple(image['name'] for image in images)
  images = images + images[-1:] * (batch_size - len(images))
  stack = {
    side: np.stack([i[side] for i in images]).astype(np.float32) / 255
    for side in ('rainy', 'clean')
  }
  return EvalBatch(stack['rainy'], stack['clean'], names)
