"""Scores a network, in training and by mixdtp eval, and reports the scores."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mixdtp_jax.data import eval_batches
from mixdtp_jax.data.images import write_png
from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.evaluation import published, results
from mixdtp_jax.evaluation.images import FirstImages
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.evaluation.score import Row, Scores, evaluate, mean_row
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.ops.ssim import WINDOW
from mixdtp_jax.restoration.engine import Engine
from mixdtp_jax.restoration.whole_image import make_restore
from mixdtp_jax.runtime import hosts
from mixdtp_jax.runtime.console import progress
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.runtime.tables import show

OFTEN = 25  # images of one size that repay compiling a program for it


def check_sizes(
  pairs: Pairs, protocols: Sequence[str] = tuple(PROTOCOLS), limit: int = 0
) -> None:
  """Raises ValueError if one of the images is too small to be scored."""
  if set(protocols) <= {'rgb'}:  # whose SSIM has a border of zeros
    return
  groups = eval_batches.by_shape(pairs, limit)
  for (height, width), (first, *_) in groups.items():
    if min(height, width) < WINDOW:
      raise ValueError(
        f'{pairs[first]["name"]} has {width}x{height} pixels; SSIM needs '
        f'{WINDOW}x{WINDOW}: remove the pair, or take protocol rgb alone'
      )


def score_network(
  cfg: AnyConfig,
  params: Any,
  pairs: Pairs,
  *,
  batch_size: int,
  protocols: Sequence[str] = tuple(PROTOCOLS),
  limit: int = 0,
  folder: str | os.PathLike | None = None,
  mesh: jax.sharding.Mesh | None = None,
  kernels: str = 'auto',
  often: int = OFTEN,
  inputs: dict[str, Scores] | None = None,
  check: Callable[[], None] = lambda: None,
) -> tuple[list[Row], np.ndarray]:
  """Restores and scores images; all hosts call it in the same way.

  Args:
    cfg, params: the network.
    pairs, batch_size, limit: see `eval_batches`.
    protocols, inputs: see `evaluate`.
    folder: the first host writes the restored images there, into images/; None
      writes none.
    mesh, kernels: see `make_restore`.
    often: one device restores sizes of fewer images in pieces, by the engine,
      whose last bits depend on the programs that are kept; 1 restores all as a
      whole.
    check: called between batches; its error ends the evaluation.

  Returns:
    A row for each image, and the first images side by side (H, W, 3) uint8.

  Raises:
    ValueError: an image is too small; or see `evaluate`.
  """
  check_sizes(pairs, protocols, limit)
  first = FirstImages(pairs, folder if hosts.is_first() else None)
  groups = eval_batches.by_shape(pairs, limit)
  tell = progress('Evaluating', sum(map(len, groups.values())))

  def after_batch(done: int) -> None:
    tell(done)
    check()

  rows = evaluate(
    _make_restore(cfg, params, groups, mesh, kernels, often, batch_size),
    eval_batches.eval_batches(pairs, batch_size=batch_size, limit=limit),
    protocols,
    save=first.add,
    progress=after_batch,
    inputs=inputs,
  )
  return rows, first.image


def _make_restore(cfg, params, groups, mesh, kernels, often, batch_size):
  """Returns the `restore` of `evaluate` for groups of images by size."""
  mesh = mesh or make_mesh()
  rare = {size for size, images in groups.items() if len(images) < often}
  if mesh.size > 1:
    rare.clear()
  if rare:
    engine = Engine(
      cfg,
      jax.device_get(params),
      dtype=cfg.dtype,
      devices=[mesh.devices.item()],
      kernels=kernels,
    )
  if rare < groups.keys():
    whole = make_restore(
      final_image(cfg),
      params,
      multiple=cfg.multiple,
      mesh=mesh,
      kernels=kernels,
      batch_size=batch_size,
    )

  def restore(images: np.ndarray) -> np.ndarray | jax.Array:
    if images.shape[1:3] in rare:
      return np.stack([engine(image) for image in images])
    return whole(images)

  return restore


def report(
  rows: Sequence[Row],
  image: np.ndarray,
  folder: str | os.PathLike | None,
  *,
  dataset: str,
  crop_multiple: int,
  context: Mapping[str, Any],
) -> list[pathlib.Path]:
  """Writes scores, prints them among published ones, and returns the paths.

  Args:
    rows, image: see `score_network`.
    folder: gets results.csv, results.json and comparison.png; None writes
      none.
    dataset: whose whole test split was scored; '' for other images.
    crop_multiple: of the images' sides.
    context: what was evaluated, in JSON, for results.json.
  """
  name = 'this run'
  if crop_multiple > 1:
    name += f', images cut to multiples of {crop_multiple}'
  ranks = published.rank(dataset, mean_row(rows).restored, name)
  paths = []
  if folder is not None:
    names = ('results.csv', 'results.json', 'comparison.png')
    paths = [pathlib.Path(folder, name) for name in names]
    results.write_csv(rows, paths[0])
    results.write_json(rows, paths[1], context, ranks)
    write_png(image, paths[2])
  show(results.score_table(rows), *published.tables(ranks))
  return paths
