"""Image deraining in JAX: MixDTPNet, its data, training and evaluation.

restorer = mixdtp_jax.load()
restored = restorer(image)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from mixdtp_jax.restoration.restorer import Restorer

__version__ = '0.2.0'

# TensorFlow only reads data here, and is imported by several libraries: its
# start-up notices, also those on oneDNN, would bury our output, and so would
# XLA's advice on slow compiling. Their errors reach Python as exceptions.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')


def load(
  weights: str | os.PathLike = 'general',
  *,
  memory: int | None = None,
  scratch: str | os.PathLike | None = None,
  dtype: str = 'float32',
) -> Restorer:
  """Loads a network that takes the rain out of images.

  Args:
    weights: the name of shipped weights, a .safetensors or .pth file, a weights
      folder, or the workdir of a training run.
    memory: bytes that this process may use in all; None for half of the memory
      that is free when it is called.
    scratch: folder for a temporary file, which holds the maps that do not fit
      into `memory`; None for the user's cache folder, or TMPDIR if that is set.
    dtype: of the convolutions, 'float32' or 'bfloat16'.

  Returns:
    A `mixdtp_jax.restoration.restorer.Restorer`: call it with an image.

  Raises:
    FileNotFoundError: there are no such weights.
    ValueError: the weights are damaged, `memory` is too little, or `dtype` is
      not known.
  """
  from mixdtp_jax.restoration.restorer import Restorer

  return Restorer(weights, memory=memory, scratch=scratch, dtype=dtype)
