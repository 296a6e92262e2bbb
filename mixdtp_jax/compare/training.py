"""The same training steps in JAX and in PyTorch, from the same weights."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mixdtp_jax.compare.networks import Networks
from mixdtp_jax.compare.speed import Speed, compile_timed, measure
from mixdtp_jax.console import progress
from mixdtp_jax.data.folders import Pairs
from mixdtp_jax.interop import torch_inference, torch_training
from mixdtp_jax.interop.torch_weights import to_torch
from mixdtp_jax.mesh import make_mesh
from mixdtp_jax.state import TrainState, make_optimizer, make_schedule
from mixdtp_jax.update import make_train_step

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


class _JaxTrainer:
  """Training in JAX by a compiled step."""

  def __init__(self, run: jax.stages.Compiled, state: TrainState):
    self.state = state
    self._run = run

  def step(self, batch: dict[str, jax.Array]) -> float:
    """One update; returns the loss before it, when all is done."""
    self.state, scalars = self._run(self.state, batch)
    jax.block_until_ready(self.state)
    return float(scalars['loss'])


class _TorchTrainer:
  """Training in PyTorch, of a copy of the network."""

  def __init__(self, networks: Networks, config: ml_collections.ConfigDict):
    self.network = copy.deepcopy(networks.torch)
    self._step = torch_training.make_train_step(config, self.network)
    self._device = torch_inference.device_of(self.network)

  def place(self, batch: Batch) -> dict[str, Any]:
    """The batch on the network's device, channels first."""
    return {
      side: torch_inference.to_nchw(images, self._device)
      for side, images in batch.items()
    }

  def step(self, batch: dict[str, Any], learning_rate: float) -> float:
    """One update; returns the loss before it, when all is done."""
    loss = self._step(batch['rainy'], batch['clean'], learning_rate)
    torch_inference.finish(self._device)
    return float(loss)


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
  first = jax.device_put(batches[0], networks.device)
  compiled = compile_timed(
    make_train_step(config, make_mesh([networks.device])),
    _initial_state(networks, config),
    first,
  )
  speed = _measure_step(networks, config, compiled, batches[0], repeats)
  jax_trainer = _JaxTrainer(compiled.run, _initial_state(networks, config))
  torch_trainer = _TorchTrainer(networks, config)
  schedule, losses = make_schedule(config), []
  report = progress('Training step', len(batches))
  for number, batch in enumerate(batches):
    losses.append(
      (
        jax_trainer.step(jax.device_put(batch, networks.device)),
        torch_trainer.step(torch_trainer.place(batch), float(schedule(number))),
      )
    )
    report(number + 1)
  distances = _distances(
    to_torch(jax_trainer.state.params, networks.cfg),
    torch_inference.weights_of(torch_trainer.network),
    torch_inference.weights_of(networks.torch),
  )
  return Training(*zip(*losses, strict=True), *distances), speed


def _initial_state(networks, config) -> TrainState:
  # Copies: a step consumes its state, and the networks are needed again.
  params = jax.tree.map(lambda leaf: jnp.array(leaf), networks.params)
  opt_state = make_optimizer(config).init(params)
  return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def _measure_step(networks, config, compiled, batch, repeats) -> Speed:
  jax_trainer = _JaxTrainer(compiled.run, _initial_state(networks, config))
  torch_trainer = _TorchTrainer(networks, config)
  jax_batch = jax.device_put(batch, networks.device)
  torch_batch = torch_trainer.place(batch)
  learning_rate = float(make_schedule(config)(0))
  size = 'x'.join(map(str, batch['rainy'].shape[1:3]))
  return measure(
    f'training step, {len(batch["rainy"])} x {size}',
    compiled,
    lambda: jax_trainer.step(jax_batch),
    lambda: torch_trainer.step(torch_batch, learning_rate),
    networks=networks,
    repeats=repeats,
  )


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
