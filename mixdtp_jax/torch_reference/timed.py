"""Restoring images and training in PyTorch, ready to be timed.

The counterpart of `measure.timed`.
"""

from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from mixdtp_jax.measure.timed import Cost, Timed
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.recipe.schedules import make_schedule
from mixdtp_jax.torch_reference import inference, training
from mixdtp_jax.torch_reference.network import torch
from mixdtp_jax.torch_reference.variants import Variant


def make_inference(
  network: torch.nn.Module, rainy: np.ndarray, variant: Variant, dtype: str
) -> Timed:
  """Prepares restoring rainy images (B, H, W, 3); see `inference.make_run`.

  Raises:
    RuntimeError: PyTorch lacks memory or a compiler.
  """
  run = inference.make_run(network, rainy, variant, dtype)
  return _first_run(run, len(rainy), inference.device_of(network))


def make_training(
  config: ml_collections.ConfigDict,
  network: torch.nn.Module,
  batch: dict[str, np.ndarray],
  variant: Variant,
) -> Timed:
  """Prepares updates of a copy of a network on one batch.

  Args:
    config: the recipe; the rate is that of its first update.
    network: stays as it is.
    batch: {'rainy', 'clean'} (B, H, W, 3) float32 in [0, 1].
    variant: in which it is trained.

  Raises:
    RuntimeError: PyTorch lacks memory or a compiler.
  """
  trainer = training.Trainer(config, network, variant)
  placed, rate = trainer.place(batch), float(make_schedule(config)(0))
  return _first_run(
    lambda: trainer.step(placed, rate),
    len(batch['rainy']),
    inference.device_of(network),
  )


def _first_run(
  run: Callable[[], Any], batch: int, device: torch.device
) -> Timed:
  first = seconds(run)[0]
  peak = inference.peak_memory(run, device)
  return Timed(run, Cost(batch, 0.0, 0.0, first, peak))
