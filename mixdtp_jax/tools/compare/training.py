"""The same training steps in JAX and in PyTorch, from the same weights."""

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
from mixdtp_jax.tools.compare.speed import Speed, measure
from mixdtp_jax.torch_reference import inference, training
from mixdtp_jax.torch_reference import timed as torch_timed
from mixdtp_jax.weights.pth import to_torch

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Training:
  """What the steps did.

  Attributes:
    jax_losses: before each update.
    torch_losses: the same.
    apart: |JAX - PyTorch|, Euclidean norm over all weights after the steps.
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
    """How far the two are apart, in parts of how far PyTorch moved."""
    return self.apart / self.moved if self.moved else self.apart

  @property
  def of_size(self) -> float:
    """The same in parts of the weights' own norm."""
    return self.apart / self.size


def crop_batches(
  images: Pairs, *, steps: int, batch_size: int, crop: int, seed: int
) -> list[Batch]:
  """Batches {'rainy', 'clean'} (batch_size, crop, crop, 3) of random crops.

  Raises:
    ValueError: an image is smaller than the crop.
  """
  for index in range(len(images)):
    height, width = images.shape(index)
    if min(height, width) < crop:
      raise ValueError(
        f'{images[index]["name"]}: {height}x{width} pixels of it are compared, '
        f'too few for crops of {crop}: take smaller crops or a larger size'
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
  repeats: int,
) -> tuple[Training, Speed]:
  """Measures updates, then trains both from the start, one update a batch.

  Args:
    networks: stay as they are.
    config: the recipe: loss, optimizer, and the learning rates of the first
      updates. Its model is that of the networks.
    batches: of one shape.
    repeats: updates of each that are timed.
  """
  mesh = make_mesh([networks.device])
  speed, run = _measure_step(networks, config, batches[0], mesh, repeats)
  jax_trainer = timed.Trainer(config, networks.params, mesh, run)
  torch_trainer = training.Trainer(config, networks.torch)
  schedule, losses = make_schedule(config), []
  report = progress('Training step', len(batches))
  for number, batch in enumerate(batches):
    losses.append(
      (
        jax_trainer.step(jax_trainer.place(batch)),
        torch_trainer.step(torch_trainer.place(batch), float(schedule(number))),
      )
    )
    report(number + 1)
  distances = _distances(
    to_torch(jax_trainer.state.params, networks.cfg),
    inference.weights_of(torch_trainer.network),
    inference.weights_of(networks.torch),
  )
  return Training(*zip(*losses, strict=True), *distances), speed


def _measure_step(networks, config, batch, mesh, repeats):
  """The cost of a step, and the step as it is compiled for it in JAX."""
  ours, run = timed.make_training(config, networks.params, batch, mesh)
  theirs = torch_timed.make_training(config, networks.torch, batch)
  size = 'x'.join(map(str, batch['rainy'].shape[1:3]))
  what = f'training step, {len(batch["rainy"])} x {size}'
  return measure(what, ours, theirs, repeats), run


def _distances(ours, theirs, start) -> tuple[float, float, float]:
  """|ours - theirs|, |theirs - start|, |theirs|, over all weights."""

  def norm(weights):
    squares = (np.square(w, dtype=np.float64).sum() for w in weights)
    return float(np.sqrt(sum(squares)))

  return (
    norm(ours[name] - theirs[name] for name in theirs),
    norm(theirs[name] - start[name] for name in theirs),
    norm(theirs.values()),
  )
