"""The steps in which an image goes through a network, piece by piece.

They name feature maps and say which function of phases.py makes which map of
which others. They hold for images of any size.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mixdtp_jax.models.config import (
  AnyConfig,
  MixDTPConfig,
  PReNetConfig,
  RestormerConfig,
)
from mixdtp_jax.restoration import phases


@dataclasses.dataclass(frozen=True)
class MapSpec:
  """A feature map.

  Attributes:
    name: of the map.
    level: 0 for the image's size, 1 for half of it, and so on.
    channels: how many it has.
    dtype: of its values.
  """

  name: str
  level: int
  channels: int
  dtype: str = 'float32'


@dataclasses.dataclass(frozen=True)
class Weight:
  """One array of a network's parameters, or a part of it.

  Attributes:
    path: its names in the parameters.
    block: which of a stage's stacked blocks; None where none are stacked.
    third: 0, 1, 2 for q, k, v, which share an array; None for all of it.
  """

  path: tuple[str, ...]
  block: int | None = None
  third: int | None = None

  def of(self, params: dict) -> np.ndarray:
    """Returns its values."""
    for name in self.path:
      params = params[name]
    values = np.asarray(params)
    if self.block is not None:
      values = values[self.block]
    if self.third is not None:
      values = np.split(values, 3, axis=-1)[self.third]
    return np.ascontiguousarray(values)


@dataclasses.dataclass(frozen=True)
class Step:
  """One function, applied to all pieces of an image.

  Attributes:
    function: of phases.py.
    params: a tree of Weights, its first argument.
    sources: the maps that it reads, each with the halo that it needs.
    targets: the maps of its first results, which it may read, too; none for
      sums over all pieces.
    level: of the coarsest of these maps, on which pieces are counted.
    mixing: of sums: the weights that make a matrix of them for the next step.
    mixes: takes that matrix.
    static: arguments that the function is compiled for.
    frees: maps that no step reads after this one.
  """

  function: Callable
  params: Any
  sources: tuple[tuple[MapSpec, int], ...]
  targets: tuple[MapSpec, ...]
  level: int
  mixing: tuple[Weight, ...] = ()
  mixes: bool = False
  static: tuple[tuple[str, Any], ...] = ()
  frees: tuple[MapSpec, ...] = ()

  @property
  def width(self) -> int:
    """Returns the most channels that it computes with, about."""
    maps = *(spec for spec, _ in self.sources), *self.targets
    channels = max(spec.channels for spec in maps)
    # The refinement's four gates are wider than its state.
    return channels * (3 if self.function is phases.refine else 1)


RAINY = MapSpec('rainy', 0, 3)
FINAL = MapSpec('final', 0, 3)
_COARSE = MapSpec('coarse', 0, 3)


def steps_of(cfg: AnyConfig) -> list[Step]:
  """Returns the steps from the map RAINY to the map FINAL."""
  return list(_STEPS[type(cfg)](cfg))


def _prenet(cfg: PReNetConfig) -> Iterator[Step]:
  yield from _refine(cfg, RAINY)


def _mixdtp(cfg: MixDTPConfig) -> Iterator[Step]:
  if cfg.detail_dilation:
    function, halo = phases.detail_dilation, phases.DETAIL_HALO
    params = {n: _kernel('detail_dilation', n) for n in ('zoom', 'embed')}
  else:
    function, halo = phases.embed, phases.CONV_HALO
    params = _kernel('embed')
  x = yield from _encode(cfg, function, params, halo)
  for level in (2, 1, 0):
    skip, entered = _map(cfg, level), _map(cfg, level + 1, 'entered')
    if cfg.coupling:
      # Made again of what the encoder kept: to keep it, too, would take memory.
      yield _down(skip, entered)
    yield _join(x, skip, skip, 'mhs')
    blocks = cfg.decoder_blocks[level]
    yield from _stage(cfg, skip, blocks, 'mhs', f'stage{level + 1}')
    if cfg.coupling:
      both = (skip, 0), (entered, phases.CONV_HALO)
      up = _kernel('mhs', _up(level), 'conv')
      yield Step(phases.up_add, up, both, (skip,), level + 1, frees=(entered,))
    x = skip
  yield from _stage(cfg, x, cfg.refinement_blocks, 'mhs', 'refinement')
  target = _COARSE if cfg.steps else FINAL
  sources = ((x, phases.CONV_HALO),)
  params = _kernel('mhs', 'to_image')
  yield Step(phases.to_image, params, sources, (target,), 0, frees=(x,))
  if cfg.steps:
    yield from _refine(cfg, _COARSE)


def _restormer(cfg: RestormerConfig) -> Iterator[Step]:
  embed = phases.embed, _kernel('embed'), phases.CONV_HALO
  x = yield from _encode(cfg, *embed)
  for level in (2, 1, 0):
    skip = _map(cfg, level)
    # The finest level keeps all the channels.
    joined = skip if level else _map(cfg, 0, 'joined', times=2)
    yield _join(x, skip, joined)
    blocks = cfg.decoder_blocks[level]
    yield from _stage(cfg, joined, blocks, f'stage{level + 1}')
    x = joined
  yield from _stage(cfg, x, cfg.refinement_blocks, 'refinement')
  sources = (x, phases.CONV_HALO), (RAINY, 0)
  params = _kernel('to_image')
  yield Step(phases.to_residual, params, sources, (FINAL,), 0, frees=(x, RAINY))


_STEPS: dict[type, Callable[..., Iterator[Step]]] = {
  MixDTPConfig: _mixdtp,
  PReNetConfig: _prenet,
  RestormerConfig: _restormer,
}


def _map(cfg, level, name='x', times=1):
  channels = times * cfg.level_width(level)
  return MapSpec(f'{name}{level + 1}', level, channels, cfg.dtype)


def _kernel(*path):
  return {'kernel': Weight((*path, 'kernel'))}


def _up(level):
  return f'up{level + 2}_{level + 1}'


def _encode(cfg, function, params, halo):
  """Yields the encoder's steps; returns the coarsest level's map."""
  x = _map(cfg, 0)
  static = (('dtype', cfg.dtype),)
  yield Step(function, params, ((RAINY, halo),), (x,), 0, static=static)
  for level, blocks in enumerate(cfg.encoder_blocks):
    if level:
      yield _down(x, _map(cfg, level))
      x = _map(cfg, level)
    yield from _stage(cfg, x, blocks, 'mfe', f'stage{level + 1}')
  return x


def _down(source, target):
  name = f'down{target.level}_{target.level + 1}'
  sources = ((source, phases.DOWN_HALO),)
  params = _kernel('mfe', name, 'conv')
  return Step(phases.down, params, sources, (target,), target.level)


def _join(coarse, skip, target, *path):
  params = {'up': _kernel(*path, _up(skip.level), 'conv')}
  if target is skip:
    params['reduce'] = _kernel(*path, f'reduce{skip.level + 1}')
  sources = (skip, 0), (coarse, phases.CONV_HALO)
  frees = (coarse,) if target is skip else (coarse, skip)
  return Step(
    phases.up_join, params, sources, (target,), coarse.level, frees=frees
  )


def _stage(cfg, x, blocks, *path):
  """Yields the steps of some transformer blocks, in place."""
  for block in range(blocks):

    def weight(*names, third=None, block=block):
      return Weight((*path, 'blocks', *names), block, third)

    def qkv(third, weight=weight):
      names = 'qkv', 'qkv_depthwise'
      return tuple(weight('attention', n, 'kernel', third=third) for n in names)

    norms = [
      tuple(weight(norm, name) for name in ('scale', 'bias'))
      for norm in ('norm1', 'norm2')
    ]
    yield Step(
      phases.attention_sums,
      {'norm': norms[0], 'q': qkv(0), 'k': qkv(1)},
      ((x, phases.SUMS_HALO),),
      (),
      x.level,
      mixing=(
        weight('attention', 'temperature'),
        weight('attention', 'project_out', 'kernel'),
      ),
    )
    names = 'project_in', 'depthwise', 'project_out'
    feed_forward = tuple(weight('feed_forward', n, 'kernel') for n in names)
    params = {'norm1': norms[0], 'v': qkv(2), 'norm2': norms[1]}
    yield Step(
      phases.block,
      params | {'feed_forward': feed_forward},
      ((x, phases.BLOCK_HALO),),
      (x,),
      x.level,
      mixes=True,
    )


def _refine(cfg, image):
  """Yields the steps of the refinement, which begins with `image`."""
  path = 'progressive', 'step'
  names = ['conv_in', 'gates', 'conv_out']
  names += [f'residual{n // 2 + 1}_{n % 2 + 1}' for n in range(10)]
  params = {
    name: _kernel(*path, name) | {'bias': Weight((*path, name, 'bias'))}
    for name in names
  }
  c = MapSpec('c', 0, cfg.recurrent_width)
  h = MapSpec('h', 0, cfg.recurrent_width, cfg.dtype)
  for number in range(cfg.steps):
    last = number == cfg.steps - 1
    sources = (RAINY, phases.REFINE_HALO), (image, phases.REFINE_HALO)
    if number:
      sources += (c, phases.C_HALO), (h, phases.H_HALO)
    yield Step(
      phases.refine,
      params,
      sources,
      (FINAL,) if last else (_COARSE, c, h),
      0,
      static=(('dtype', cfg.dtype),),
      frees=(RAINY, _COARSE, c, h) if last else (),
    )
    image = _COARSE
