"""Batches of whole images, for evaluation."""

import collections
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.data.threads import map_in_threads


class EvalBatch(NamedTuple):
  """Whole images of one shape: (B, H, W, 3) float32 in [0, 1]."""

  rainy: np.ndarray
  clean: np.ndarray
  names: tuple[str, ...]


def by_shape(pairs: Pairs, limit: int = 0) -> dict[tuple[int, int], list[int]]:
  """Returns the indices of the images of each (H, W), as `eval_batches`."""
  groups = collections.defaultdict(list)
  for index in range(min(len(pairs), limit or len(pairs))):
    groups[pairs.shape(index)].append(index)
  return groups


def eval_batches(
  pairs: Pairs, *, batch_size: int, limit: int = 0
) -> Iterator[EvalBatch]:
  """Yields whole images in batches of one shape, and decodes the next ones.

  Shapes come in the order of their first image. A shape's last batch may have
  fewer than `batch_size` images. `limit` takes only the first images; 0 takes
  all. Four batches at most are in memory.
  """

  def decode(indices: list[int]) -> EvalBatch:
    images = [pairs[index] for index in indices]
    rainy, clean = (
      np.stack([i[side] for i in images]).astype(np.float32) / 255
      for side in ('rainy', 'clean')
    )
    return EvalBatch(rainy, clean, tuple(image['name'] for image in images))

  chunks = (
    indices[start : start + batch_size]
    for indices in by_shape(pairs, limit).values()
    for start in range(0, len(indices), batch_size)
  )
  return map_in_threads(decode, chunks, most=2)
