"""One network in both frameworks: the differences of all their results.

Images are NHWC float32 in [0, 1].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mixdtp_jax.data.eval_batches import eval_batches
from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.evaluation.score import Row, Scores, evaluate
from mixdtp_jax.measure import timed
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import final_image, make_network
from mixdtp_jax.ops import choice
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.schedules import make_schedule
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.runtime.console import progress
from mixdtp_jax.runtime.mesh import batch_sharding, make_mesh, place
from mixdtp_jax.torch_reference import inference, module_outputs, training
from mixdtp_jax.weights.state_dict import to_torch

Batch = timed.Batch


class Networks(NamedTuple):
  """One network in both, each on the first device of its framework."""

  cfg: AnyConfig
  params: dict  # on `device`
  torch: Any  # a PyTorch module with the same weights
  device: jax.Device
  kernels: str  # those of the device


def make_networks(
  cfg: AnyConfig, params: dict, kernels: str = 'auto'
) -> Networks:
  """Puts a network on the devices; `kernels` is the option of a recipe."""
  device = jax.devices()[0]
  kernels = choice.resolve(kernels, [device])
  network = inference.load_network(cfg, params)
  return Networks(cfg, jax.device_put(params, device), network, device, kernels)


def stage_differences(
  networks: Networks, images: Pairs
) -> list[dict[str, Any]]:
  """Compares the outputs of all modules, in the order of computation.

  Each 'stage' (see `torch_reference.module_outputs`) has the 'largest' and the
  'mean' |JAX - PyTorch| over all images, each of which counts the same; the
  largest magnitude in PyTorch, 'scale'; and 'relative', the largest difference
  divided by it.
  """
  network = make_network(networks.cfg)
  jax_outputs = choice.traced_with(
    networks.kernels, module_outputs.make_jax_outputs(network, networks.cfg)
  )
  found: dict[str, list[tuple[float, ...]]] = {}
  for batch in eval_batches(images, batch_size=1):
    rainy = whole_image.pad(batch.rainy, networks.cfg.multiple, at_once=1)
    ours = jax_outputs(networks.params, rainy)
    theirs = module_outputs.torch_outputs(networks.torch, networks.cfg, rainy)
    for name, value in theirs.items():
      apart = np.abs(ours[name].astype(np.float64) - value)
      numbers = apart.max(), apart.mean(), np.abs(value).max()
      found.setdefault(name, []).append(numbers)
  differences = []
  for name, rows in found.items():
    largest, _, scale = np.max(rows, axis=0).tolist()
    difference = {'largest': largest, 'mean': float(np.mean(rows, axis=0)[1])}
    difference |= {'scale': scale, 'relative': largest / (scale or 1)}
    differences.append({'stage': name} | difference)
  return differences


class Restored(NamedTuple):
  """One image: its name, and four arrays (H, W, 3) float32 in [0, 1]."""

  name: str
  rainy: np.ndarray
  clean: np.ndarray
  jax: np.ndarray
  torch: np.ndarray


def restore_both(
  networks: Networks, images: Pairs
) -> tuple[list[Row], list[Row], list[Restored]]:
  """Returns JAX's scores under every protocol, PyTorch's, and the images."""
  multiple, mesh = networks.cfg.multiple, make_mesh([networks.device])
  network, params = final_image(networks.cfg), networks.params
  batches = list(eval_batches(images, batch_size=1))
  inputs: dict[str, Scores] = {}
  rows, restored = [], []
  for restore in (
    whole_image.make_restore(
      network,
      params,
      multiple=multiple,
      mesh=mesh,
      kernels=networks.kernels,
    ),
    inference.make_restore(networks.torch, multiple=multiple),
  ):
    saved: dict[str, np.ndarray] = {}

    def save(names, images, saved=saved):
      found = np.nan_to_num(jax.device_get(images))
      saved.update(zip(names, found, strict=True))

    rows.append(
      evaluate(restore, batches, list(PROTOCOLS), save=save, inputs=inputs)
    )
    restored.append(saved)
  pictures = [
    Restored(name, batch.rainy[0], batch.clean[0], *(r[name] for r in restored))
    for batch in batches
    for name in batch.names
  ]
  return rows[0], rows[1], pictures


def crop_batches(
  images: Pairs, *, steps: int, batch_size: int, crop: int, seed: int
) -> list[Batch]:
  """Draws `steps` batches of random crops, (batch_size, crop, crop, 3).

  ValueError if an image is smaller than a crop.
  """
  for index in range(len(images)):
    height, width = images.shape(index)
    if min(height, width) < crop:
      raise ValueError(
        f'{images[index]["name"]}: its {height}x{width} pixels that are '
        f'compared are too few for crops of {crop}: use a smaller --crop or a '
        'larger --size'
      )
  random = np.random.default_rng(seed)

  def draw() -> np.ndarray:
    pair = images[int(random.integers(len(images)))]
    both = np.concatenate([pair['rainy'], pair['clean']], axis=-1)
    top, left = (random.integers(side - crop + 1) for side in both.shape[:2])
    return both[top : top + crop, left : left + crop]

  batches = []
  for _ in range(steps):
    crops = np.stack([draw() for _ in range(batch_size)]).astype(np.float32)
    rainy, clean = np.split(crops / 255, 2, axis=-1)
    batches.append({'rainy': rainy, 'clean': clean})
  return batches


def train_both(
  networks: Networks, config: Recipe, batches: Sequence[Batch]
) -> dict[str, Any]:
  """Trains copies of both networks, one update for each batch.

  Returns 'jax_losses' and 'torch_losses' before each update; Euclidean norms
  over all weights after the last one: |JAX - PyTorch| 'apart', |PyTorch -
  start| 'moved', |PyTorch| 'size'; and 'apart' relative to the other two,
  'of_movement' and 'of_size'.
  """
  mesh = make_mesh([networks.device])
  ours = timed.Trainer(config, networks.params, mesh, batches[0])
  theirs = training.Trainer(config, networks.torch)
  schedule = make_schedule(config)
  jax_losses, torch_losses = [], []
  tell = progress('Training step', len(batches))
  for number, batch in enumerate(batches):
    jax_losses.append(ours.step(place(batch, batch_sharding(mesh))))
    rate = float(schedule(number))
    torch_losses.append(theirs.step(theirs.place(batch), rate))
    tell(number + 1)
  weights = to_torch(ours.state.params, networks.cfg)
  start, end = networks.torch.state_dict(), theirs.network.state_dict()
  squares = np.zeros(3)
  for name, value in end.items():
    of_torch = value.numpy(force=True)
    before = start[name].numpy(force=True)
    for i, x in enumerate(
      (weights[name] - of_torch, of_torch - before, of_torch)
    ):
      squares[i] += np.square(x, dtype=np.float64).sum()
  apart, moved, size = np.sqrt(squares).tolist()
  return {
    'jax_losses': jax_losses,
    'torch_losses': torch_losses,
    'apart': apart,
    'moved': moved,
    'size': size,
    'of_movement': apart / (moved or 1),
    'of_size': apart / size,
  }
