"""The whole comparison of one network in JAX and in PyTorch."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
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
from mixdtp_jax.tools.compare.training import Batch, Training, train_both
from mixdtp_jax.torch_reference import inference


@dataclasses.dataclass(frozen=True)
class Study:
  """The numbers and images of a comparison.

  Attributes:
    environment: versions, devices and threads.
    stages: differences of the modules' outputs.
    jax_rows: scores of each image that JAX restored.
    torch_rows: scores of each image that PyTorch restored.
    images: rainy, clean and both restored.
    training: the same updates in both.
  """

  environment: dict[str, Any]
  stages: list[Difference]
  jax_rows: list[Row]
  torch_rows: list[Row]
  images: list[Restored]
  training: Training


def study(
  networks: Networks,
  config: ml_collections.ConfigDict,
  images: Pairs,
  batches: Sequence[Batch],
) -> Study:
  """Compares two networks; the paper's takes minutes on a CPU.

  Args:
    networks: the network in both frameworks.
    config: recipe of the updates; its model is the networks'.
    images: to restore.
    batches: to train on, one update each; see `crop_batches`.
  """
  with (
    # By default, a GPU may multiply float32 numbers with fewer bits.
    jax.default_matmul_precision('highest'),
    inference.full_precision(),
  ):
    logging.info('Comparing all modules on %d images', len(images))
    stages = stage_differences(networks, images)
    logging.info('Scoring the images that both restore')
    *rows, restored = restore_both(networks, images)
    logging.info('Compiling the training step')
    training = train_both(networks, config, batches)
  return Study(_environment(networks), stages, *rows, restored, training)


def _environment(networks: Networks) -> dict[str, Any]:
  device = networks.device
  return {
    'jax': {
      'version': jax.__version__,
      'device': f'{device} ({device.device_kind})',
    },
    'torch': inference.describe(inference.device_of(networks.torch)),
    'cores': os.cpu_count(),  # XLA uses all of them
    'precision': 'float32, without TF32',
  }
