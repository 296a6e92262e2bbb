"""The project's own PyTorch network, in its forms, as opponents of JAX."""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from mixdtp_jax.measure.machine import cores
from mixdtp_jax.measure.timed import Timed
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.config import AnyConfig

_NAMES = ('published', 'eager', 'compile')  # of interop.torch_forms.FORMS
ALL = ','.join(_NAMES)


def parse(text: str) -> tuple[str, ...]:
  """Names of forms from 'published,eager,compile', or none from 'none'.

  Raises:
    ValueError: a name is unknown.
    ImportError: there is no PyTorch.
  """
  names = () if text == 'none' else tuple(text.split(','))
  if unknown := [name for name in names if name not in _NAMES]:
    raise ValueError(f'--opponents {unknown[0]!r}: choose from {ALL}, or none')
  if names and importlib.util.find_spec('torch') is None:
    raise ImportError(
      'the opponents need PyTorch: pip install torch, or take --opponents none'
    )
  return names


def inference(
  names: tuple[str, ...], cfg: AnyConfig, params: dict, rainy: np.ndarray
) -> dict[str, Callable[[], Timed]]:
  """How the contenders of `torch_contenders.make_inference` are made."""

  def make(name):
    from mixdtp_jax.torch_reference import forms, timed

    form = forms.FORMS[name]
    return timed.make_inference(network(), rainy, form, cfg.dtype)

  network = _loader(cfg, params)
  return {name: functools.partial(make, name) for name in names}


def training(
  names: tuple[str, ...],
  config: ml_collections.ConfigDict,
  cfg: AnyConfig,
  params: dict,
) -> dict[str, Callable[[dict[str, np.ndarray]], Timed]]:
  """How those of `torch_contenders.make_training` are made from a batch."""

  def make(name, batch):
    from mixdtp_jax.torch_reference import forms, timed

    form = forms.FORMS[name]
    return timed.make_training(config, network(), batch, form)

  network = _loader(cfg, params)
  return {name: functools.partial(make, name) for name in names}


def images_per_second(
  make: Callable[[dict[str, np.ndarray]], Timed],
  images: dict[str, np.ndarray],
  repeats: int,
) -> float:
  """Median rate of an opponent in training, which is let go afterwards.

  Raises:
    MemoryError: PyTorch says so.
  """
  from mixdtp_jax.torch_reference import inference

  try:
    run = make(images).run
    times = [seconds(run)[0] for _ in range(repeats)]
  except RuntimeError as error:
    if inference.lacks_memory(error):
      raise MemoryError(str(error)) from None
    raise
  finally:
    run = None
    inference.release_memory()
  return len(images['rainy']) / float(np.median(times))


def describe(names: tuple[str, ...]) -> dict[str, Any] | None:
  """PyTorch's version, device and threads; None without opponents."""
  if not names:
    return None
  from mixdtp_jax.torch_reference import inference

  inference.use_cores(cores())
  return inference.describe(inference.first_device())


def _loader(cfg, params):
  # When its turn has come: JAX is measured before.
  @functools.cache
  def load():
    from mixdtp_jax.torch_reference import inference

    return inference.load_network(cfg, params)

  return load


@contextlib.contextmanager
def same_precision(names: tuple[str, ...], cfg: AnyConfig) -> Iterator[None]:
  """Within it float32 is float32 in both: no TF32 on GPUs that have it."""
  with contextlib.ExitStack() as stack:
    if cfg.dtype == 'float32':
      stack.enter_context(jax.default_matmul_precision('highest'))
      if names:
        from mixdtp_jax.torch_reference import inference

        stack.enter_context(inference.full_precision())
    yield
