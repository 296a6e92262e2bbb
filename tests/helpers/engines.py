"""Tiny networks with weights that are far from their start, and engines."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from mixdtp_jax.models.config import (
  MixDTPConfig,
  PReNetConfig,
  RestormerConfig,
)
from mixdtp_jax.models.factory import (
  abstract_params,
  final_image,
)
from mixdtp_jax.restoration import shapes
from mixdtp_jax.restoration.engine import Engine
from mixdtp_jax.restoration.whole_image import make_restore

_TINY = {
  'width': 8,
  'encoder_blocks': (1, 2, 1, 1),
  'decoder_blocks': (1, 1, 1),
  'refinement_blocks': 1,
  'heads': (1, 2, 2, 4),
}
NETWORKS = {
  'mixdtp': MixDTPConfig(**_TINY, recurrent_width=4, steps=2),
  'coarse': MixDTPConfig(**_TINY, recurrent_width=4, steps=0),
  'plain': MixDTPConfig(
    **_TINY, recurrent_width=4, steps=1, detail_dilation=False, coupling=False
  ),
  'restormer': RestormerConfig(**_TINY),
  'prenet': PReNetConfig(recurrent_width=4, steps=3),
}


@functools.cache
def weights(name: str) -> dict:
  """Draws weights of one of NETWORKS."""
  return drawn(NETWORKS[name])


def drawn(cfg) -> dict:
  """Draws weights: no scale is 1, no bias 0, no temperature small."""
  random = np.random.default_rng(0)

  def draw(path, leaf):
    kind, shape = path[-1].key, leaf.shape
    if kind == 'kernel':
      inputs = int(np.prod(shape[-4:-1] if len(shape) > 3 else shape[-2]))
      values = random.uniform(-1.5, 1.5, shape) / inputs**0.5
    elif kind == 'temperature':
      values = 1 + 8 * random.random(shape)
    else:
      values = 0.2 * random.standard_normal(shape) + (kind == 'scale')
    return values.astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, abstract_params(cfg))


def weights_at_start(cfg) -> dict:
  """Draws weights as a training starts from them."""
  random = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == 'kernel':
      return random.uniform(-0.2, 0.2, leaf.shape).astype(np.float32)
    one = path[-1].key in ('scale', 'temperature')
    return np.full(leaf.shape, one, np.float32)

  return jax.tree_util.tree_map_with_path(draw, abstract_params(cfg))


@functools.cache
def whole(name: str):
  """The network on whole images (H, W, 3)."""
  cfg = NETWORKS[name]
  multiple = cfg.multiple
  restore = make_restore(final_image(cfg), weights(name), multiple=multiple)
  return lambda image: restore(image[None])[0]


def engine(name: str, **settings) -> Engine:
  """An engine of one of NETWORKS."""
  return Engine(NETWORKS[name], weights(name), **settings)


def picture(*size: int) -> np.ndarray:
  """A picture (H, W, 3) whose parts differ."""
  random = np.random.default_rng(sum(size))
  rows, columns = np.mgrid[: size[0], : size[1]] / 20
  waves = np.sin(rows)[..., None] * np.cos(columns)[..., None] / 3 + 0.5
  noise = 0.3 * random.standard_normal((*size, 3))
  return np.clip(waves + noise, 0, 1).astype(np.float32)


def use_pieces(patch: pytest.MonkeyPatch, side: int) -> None:
  """Makes the pieces of engines this large at the finest level."""
  sides = tuple((max(side >> level, 2),) for level in range(4))
  patch.setattr(shapes, '_SIDES', sides)
  patch.setattr(shapes, '_REFINE_SIDES', (side,))


@pytest.fixture
def small_pieces(monkeypatch):
  """Images of a hundred pixels have many pieces."""
  use_pieces(monkeypatch, 16)


@pytest.fixture(scope='session')
def _programs(compiler):
  folder = pathlib.Path(compiler['jax_compilation_cache_dir'])
  folder = folder.with_name('programs')
  folder.mkdir(exist_ok=True)
  return str(folder)


@pytest.fixture
def own_cache(_programs, monkeypatch):
  """Programs are not kept among the user's."""
  monkeypatch.setenv('XDG_CACHE_HOME', _programs)
