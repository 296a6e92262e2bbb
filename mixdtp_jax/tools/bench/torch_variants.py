"""The variants in which PyTorch runs the network, to be timed beside JAX.

PyTorch is imported when a variant is asked for.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from mixdtp_jax.measure.machine import cores
from mixdtp_jax.measure.timed import Timed
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.config import AnyConfig

_NAMES = ('published', 'eager', 'compile')  # of torch_reference.variants


def parse(text: str) -> tuple[str, ...]:
  """Returns the names of 'published,eager,compile', or none of 'none'.

  Raises:
    ValueError: a name is unknown.
    ImportError: PyTorch is not installed.
  """
  names = () if text == 'none' else tuple(text.split(','))
  if unknown := [name for name in names if name not in _NAMES]:
    raise ValueError(
      f'--opponents {unknown[0]!r}: choose from {",".join(_NAMES)}, or none'
    )
  if names and importlib.util.find_spec('torch') is None:
    raise ImportError(
      '--opponents needs PyTorch: pip install torch, or take --opponents none'
    )
  return names


def make_inference(
  name: str, cfg: AnyConfig, params: dict, rainy: np.ndarray
) -> Timed:
  """Prepares a variant's inference; see `torch_reference.timed`."""
  from mixdtp_jax.torch_reference import inference, timed, variants

  network = inference.load_network(cfg, params)
  return timed.make_inference(
    network, rainy, variants.VARIANTS[name], cfg.dtype
  )


def make_training(
  name: str,
  config: ml_collections.ConfigDict,
  cfg: AnyConfig,
  params: dict,
  batch: dict[str, np.ndarray],
) -> Timed:
  """Prepares a variant's updates; see `torch_reference.timed`."""
  from mixdtp_jax.torch_reference import inference, timed, variants

  network = inference.load_network(cfg, params)
  return timed.make_training(config, network, batch, variants.VARIANTS[name])


def images_per_second(
  make: Callable[[], Timed], images: int, repeats: int
) -> float:
  """Returns the median rate of a variant's updates, and frees its memory.

  Args:
    make: prepares it.
    images: of one update.
    repeats: timed runs.

  Raises:
    MemoryError: PyTorch has too little memory.
  """
  from mixdtp_jax.torch_reference import inference

  try:
    run = make().run
    times = [seconds(run)[0] for _ in range(repeats)]
  except RuntimeError as error:
    if inference.lacks_memory(error):
      raise MemoryError(str(error)) from None
    raise
  finally:
    run = None
    inference.release_memory()
  return images / float(np.median(times))


def describe(names: Sequence[str]) -> dict[str, Any] | None:
  """Returns PyTorch's version, device and threads; None without variants."""
  if not names:
    return None
  from mixdtp_jax.torch_reference import inference

  inference.use_cores(cores())
  return inference.describe(inference.first_device())


@contextlib.contextmanager
def same_precision(names: Sequence[str], cfg: AnyConfig) -> Iterator[None]:
  """Makes float32 mean float32 in both: no TF32 on GPUs that have it."""
  with contextlib.ExitStack() as stack:
    if cfg.dtype == 'float32':
      stack.enter_context(jax.default_matmul_precision('highest'))
      if names:
        from mixdtp_jax.torch_reference import inference

        stack.enter_context(inference.full_precision())
    yield
