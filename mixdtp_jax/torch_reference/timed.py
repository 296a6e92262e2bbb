"""The computations of `mixdtp_jax.measure.timed` in PyTorch."""

import ml_collections
import numpy as np

from mixdtp_jax.measure.timed import Cost, Timed
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.recipe.schedules import make_schedule
from mixdtp_jax.torch_reference import inference, training
from mixdtp_jax.torch_reference.forms import FORMS, Form
from mixdtp_jax.torch_reference.network import torch


def make_inference(
  network: torch.nn.Module,
  rainy: np.ndarray,
  form: Form = FORMS['published'],
  dtype: str = 'float32',
) -> Timed:
  """Final images from rainy ones (B, H, W, 3), as `torch_inference.make_run`.

  Raises:
    RuntimeError: PyTorch cannot: no memory, no compiler.
  """
  run = inference.make_run(network, rainy, form, dtype)
  return _started(run, len(rainy), inference.device_of(network))


def make_training(
  config: ml_collections.ConfigDict,
  network: torch.nn.Module,
  batch: dict[str, np.ndarray],
  form: Form = FORMS['published'],
) -> Timed:
  """Updates of a copy of a network on one batch, at the first update's rate.

  Args:
    config: the recipe; its model.dtype counts.
    network: stays as it is.
    batch: {'rainy', 'clean'} (B, H, W, 3).
    form: in which it is trained.

  Raises:
    RuntimeError: PyTorch cannot: no memory, no compiler.
  """
  trainer = training.Trainer(config, network, form)
  placed, rate = trainer.place(batch), float(make_schedule(config)(0))
  return _started(
    lambda: trainer.step(placed, rate),
    len(batch['rainy']),
    inference.device_of(network),
  )


def _started(run, batch, device) -> Timed:
  first = seconds(run)[0]
  peak = inference.peak_memory(run, device)
  return Timed(run, Cost(batch, 0.0, 0.0, first, peak))
