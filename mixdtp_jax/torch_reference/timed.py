"""Restoring images and training in PyTorch, ready to be timed.

The counterpart of `measure.timed`. A variant has a name of `VARIANTS`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mixdtp_jax.measure import memory
from mixdtp_jax.measure.timed import Batch, Cost, Timed
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.recipe.schedules import make_schedule
from mixdtp_jax.torch_reference import inference, training
from mixdtp_jax.torch_reference.inference import VARIANTS
from mixdtp_jax.torch_reference.network import torch


def make_inference(
  name: str, cfg: AnyConfig, params: dict, rainy: np.ndarray
) -> Timed:
  """Prepares restoring rainy images (B, H, W, 3), which stay on the device.

  RuntimeError if PyTorch lacks memory or a compiler.
  """
  network, variant = inference.load_network(cfg, params), VARIANTS[name]
  device = inference.device_of(network)
  images = variant.arrange(inference.to_nchw(rainy, device))
  restore = variant.compile(variant.prepare(network))

  @torch.inference_mode()
  def run() -> None:
    with variant.precision(device, cfg.dtype):
      restore(images)
    inference.finish(device)

  return _first_run(run, len(rainy), device)


def make_training(
  name: str, config: Recipe, params: dict, batch: Batch
) -> Timed:
  """Prepares updates on one batch, at the rate of the first update.

  RuntimeError if PyTorch lacks memory or a compiler.
  """
  network = inference.load_network(config.model, params)
  trainer = training.Trainer(config, network, VARIANTS[name])
  placed, rate = trainer.place(batch), float(make_schedule(config)(0))
  device, size = inference.device_of(network), len(batch['rainy'])
  return _first_run(lambda: trainer.step(placed, rate), size, device)


def _first_run(
  run: Callable[[], Any], batch: int, device: torch.device
) -> Timed:
  first = seconds(run)[0]
  if device.type == 'cpu':
    peak = memory.peak_of_process(run)
  else:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    held = torch.cuda.max_memory_allocated(device) - before
    peak = memory.Peak(held, 'PyTorch, max_memory_allocated()')
  return Timed(run, Cost(batch, 0.0, 0.0, first, peak))
