"""The whole comparison of one network in JAX and in PyTorch."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from mixdtp_jax.data.pairs import Pairs
from mixdtp_jax.evaluation.score import Row
from mixdtp_jax.tools.compare.networks import (
  Difference,
  Networks,
  Restored,
  restore_both,
  stage_differences,
)
from mixdtp_jax.tools.compare.speed import Speed, measure_inference
from mixdtp_jax.tools.compare.training import Batch, Training, train_both
from mixdtp_jax.torch_reference import inference as inference_lib


@dataclasses.dataclass(frozen=True)
class Study:
  """What was found.

  Attributes:
    environment: versions, devices and threads.
    stages: how far they are apart.
    jax_rows: the scores of each image.
    torch_rows: the same.
    images: rainy, clean and restored.
    training: the same steps in both.
    speeds: of inference and of a training step.
  """

  environment: dict[str, Any]
  stages: list[Difference]
  jax_rows: list[Row]
  torch_rows: list[Row]
  images: list[Restored]
  training: Training
  speeds: list[Speed]


def study(
  networks: Networks,
  config: ml_collections.ConfigDict,
  images: Pairs,
  batches: Sequence[Batch],
  repeats: int,
) -> Study:
  """Compares two networks; on a CPU a full one takes minutes.

  Args:
    networks: to compare.
    config: the recipe of the training steps; its model is the networks'.
    images: to restore.
    batches: to train on, one update each; see `crop_batches`.
    repeats: runs of each that are timed.
  """
  with (
    # Neither may round what it multiplies: both would call that float32.
    jax.default_matmul_precision('highest'),
    inference_lib.full_precision(),
  ):
    # First, so that PyTorch's first run is the first one.
    logging.info('Compiling and measuring inference')
    rainy = np.float32(images[0]['rainy'])[None] / 255
    inference = measure_inference(networks, rainy, repeats)
    logging.info('Comparing the stages of %d images', len(images))
    stages = stage_differences(networks, images)
    logging.info('Scoring what both restore')
    *rows, restored = restore_both(networks, images)
    logging.info('Compiling and measuring the training step')
    training, training_step = train_both(networks, config, batches, repeats)
  return Study(
    _environment(networks),
    stages,
    *rows,
    restored,
    training,
    [inference, training_step],
  )


def _environment(networks: Networks) -> dict[str, Any]:
  device = networks.device
  torch_device = inference_lib.device_of(networks.torch)
  return {
    'jax': {
      'version': jax.__version__,
      'device': f'{device} ({device.device_kind})',
    },
    'torch': inference_lib.describe(torch_device),
    # XLA has no knob for its threads on a CPU: it takes all cores.
    'cores': os.cpu_count(),
    'precision': 'float32, without TF32',
  }
