"""The same updates in JAX and in PyTorch, from the same weights."""

import dataclasses
from collections.abc import Sequence

import ml_collections
import numpy as np

from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.measure import timed
from mixdtp_jax.recipe.schedules import make_schedule
from mixdtp_jax.runtime.console import progress
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.tools.compare.networks import Networks
from mixdtp_jax.torch_reference import inference, training
from mixdtp_jax.weights.state_dict import to_torch

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Training:
  """Losses, and distances between weights after the last update.

  Distances are Euclidean norms over all weights.

  Attributes:
    jax_losses: loss before each update in JAX.
    torch_losses: loss before each update in PyTorch.
    apart: |JAX - PyTorch|.
    moved: |PyTorch - start|.
    size: |PyTorch|.
  """

  jax_losses: tuple[float, ...]
  torch_losses: tuple[float, ...]
  apart: float
  moved: float
  size: float

  @property
  def of_movement(self) -> float:
    """`apart` relative to `moved`."""
    return self.apart / self.moved if self.moved else self.apart

  @property
  def of_size(self) -> float:
    """`apart` relative to `size`."""
    return self.apart / self.size


def crop_batches(
  images: Pairs, *, steps: int, batch_size: int, crop: int, seed: int
) -> list[Batch]:
  """Draws batches of random crops.

  Returns:
    `steps` dicts {'rainy', 'clean'} of (batch_size, crop, crop, 3) float32 in
    [0, 1].

  Raises:
    ValueError: an image is smaller than a crop.
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

  def batch():
    crops = [_crop(images, crop, random) for _ in range(batch_size)]
    rainy, clean = np.split(np.float32(crops) / 255, 2, axis=-1)
    return {'rainy': rainy, 'clean': clean}

  return [batch() for _ in range(steps)]


def _crop(images, crop, random):
  pair = images[int(random.integers(len(images)))]
  both = np.concatenate([pair['rainy'], pair['clean']], axis=-1)
  top, left = (random.integers(side - crop + 1) for side in both.shape[:2])
  return both[top : top + crop, left : left + crop]


def train_both(
  networks: Networks,
  config: ml_collections.ConfigDict,
  batches: Sequence[Batch],
) -> Training:
  """Trains copies of both networks, one update for each batch.

  Args:
    networks: the network in both frameworks; stays unchanged.
    config: the recipe: loss, optimizer, and the learning rates of the first
      updates. Its model is the networks'.
    batches: of one shape.
  """
  ours = timed.Trainer(config, networks.params, make_mesh([networks.device]))
  theirs = training.Trainer(config, networks.torch)
  ours.compile_step(ours.place(batches[0]))
  schedule, losses = make_schedule(config), []
  tell = progress('Training step', len(batches))
  for number, batch in enumerate(batches):
    losses.append(
      (
        ours.step(ours.place(batch)),
        theirs.step(theirs.place(batch), float(schedule(number))),
      )
    )
    tell(number + 1)
  distances = _distances(
    to_torch(ours.state.params, networks.cfg),
    inference.weights_of(theirs.network),
    inference.weights_of(networks.torch),
  )
  return Training(*zip(*losses, strict=True), *distances)


def _distances(ours, theirs, start) -> tuple[float, float, float]:
  """Returns |ours - theirs|, |theirs - start| and |theirs|."""

  def norm(weights):
    squares = (np.square(w, dtype=np.float64).sum() for w in weights)
    return float(np.sqrt(sum(squares)))

  return (
    norm(ours[name] - theirs[name] for name in theirs),
    norm(theirs[name] - start[name] for name in theirs),
    norm(theirs.values()),
  )
