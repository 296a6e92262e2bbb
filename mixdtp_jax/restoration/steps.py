"""The steps in which an image of any size goes through a network, in pieces.

They name feature maps and say which function of phases.py makes which map of
which others.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
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
  """A feature map; `level` is 0 for the image's size, 1 for half of it, ..."""

  name: str
  level: int
  channels: int
  dtype: str = 'float32'


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
  """One function, applied to all pieces of an image."""

  function: Callable  # of phases.py
  params: Any  # its first argument, a tree of arrays
  sources: tuple[tuple[MapSpec, int], ...]  # maps, each with the halo it needs
  # Maps of its first results, which it may read; none: sums over all pieces.
  targets: tuple[MapSpec, ...]
  level: int  # of the coarsest of these maps, on which pieces are counted
  # Of sums: temperature and projection, which make a matrix of them.
  mixing: tuple[np.ndarray, ...] = ()
  mixes: bool = False  # whether it takes that matrix of the step before
  static: tuple[tuple[str, Any], ...] = ()  # what the function is compiled for
  frees: tuple[MapSpec, ...] = ()  # maps that no step reads after this one

  @property
  def halo(self) -> int:
    """The widest halo of its windows, in pixels."""
    return max(halo for _, halo in self.sources)

  @property
  def width(self) -> int:
    """The most channels that it computes with, about."""
    maps = *(spec for spec, _ in self.sources), *self.targets
    channels = max(spec.channels for spec in maps)
    # The refinement's four gates are wider than its state.
    return channels * (3 if self.function is phases.refine else 1)


RAINY = MapSpec('rainy', 0, 3)
FINAL = MapSpec('final', 0, 3)
_COARSE = MapSpec('coarse', 0, 3)


def steps_of(cfg: AnyConfig, params: dict) -> list[Step]:
  """Returns the steps of a network from the map RAINY to the map FINAL."""
  params = jax.tree.map(np.asarray, params)
  if isinstance(cfg, PReNetConfig):
    return list(_refine(cfg, params, RAINY))
  return list(_unet(cfg, params))


def _unet(cfg: MixDTPConfig | RestormerConfig, params: dict) -> Iterator[Step]:
  ours = isinstance(cfg, MixDTPConfig)
  encoder, decoder = params['mfe'], params['mhs'] if ours else params
  first, halo, static = phases.embed, phases.CONV_HALO, (('dtype', cfg.dtype),)
  if detail := params.get('detail_dilation'):
    first, halo = phases.detail_dilation, phases.DETAIL_HALO
  x, source = _map(cfg, 0), ((RAINY, halo),)
  embed = detail or params['embed']
  yield Step(first, embed, source, (x,), 0, static=static)
  for level in range(4):
    if level:
      yield _down(x, _map(cfg, level), encoder)
      x = _map(cfg, level)
    yield from _stage(x, encoder[f'stage{level + 1}'])
  for level in (2, 1, 0):
    skip, entered = _map(cfg, level), _map(cfg, level + 1, 'entered')
    coupled = isinstance(cfg, MixDTPConfig) and cfg.coupling
    if coupled:
      # Made again from the encoder's maps: keeping it, too, would take memory.
      yield _down(skip, entered, encoder)
    # Restormer's finest level keeps all the channels.
    joined = skip if ours or level else _map(cfg, 0, 'joined', times=2)
    yield _join(x, skip, joined, decoder)
    yield from _stage(joined, decoder[f'stage{level + 1}'])
    if coupled:
      both = (joined, 0), (entered, phases.CONV_HALO)
      up = decoder[_up(level)]['conv']
      yield Step(
        phases.up_add, up, both, (joined,), level + 1, frees=(entered,)
      )
    x = joined
  yield from _stage(x, decoder['refinement'])
  to_image, sources = decoder['to_image'], ((x, phases.CONV_HALO),)
  if not isinstance(cfg, MixDTPConfig):
    both = (x, phases.CONV_HALO), (RAINY, 0)
    yield Step(phases.to_image, to_image, both, (FINAL,), 0, frees=(x, RAINY))
    return
  target = _COARSE if cfg.steps else FINAL
  yield Step(phases.to_image, to_image, sources, (target,), 0, frees=(x,))
  if cfg.steps:
    yield from _refine(cfg, params, _COARSE)


def _map(cfg, level, name='x', times=1):
  channels = times * cfg.level_width(level)
  return MapSpec(f'{name}{level + 1}', level, channels, cfg.dtype)


def _up(level):
  return f'up{level + 2}_{level + 1}'


def _down(source, target, encoder):
  down = encoder[f'down{target.level}_{target.level + 1}']['conv']
  sources = ((source, phases.DOWN_HALO),)
  return Step(phases.down, down, sources, (target,), target.level)


def _join(coarse, skip, target, decoder):
  params = {'up': decoder[_up(skip.level)]['conv']}
  if target is skip:
    params['reduce'] = decoder[f'reduce{skip.level + 1}']
  sources = (skip, 0), (coarse, phases.CONV_HALO)
  frees = (coarse,) if target is skip else (coarse, skip)
  return Step(
    phases.up_join, params, sources, (target,), coarse.level, frees=frees
  )


def _stage(x, params):
  """Yields the steps of some transformer blocks, in place."""
  blocks = params['blocks']  # stacked along their first axis
  for number in range(len(blocks['norm1']['scale'])):
    block = jax.tree.map(lambda leaf, n=number: leaf[n], blocks)
    norm1, norm2 = (
      (block[norm]['scale'], block[norm]['bias']) for norm in ('norm1', 'norm2')
    )
    attention, feed_forward = block['attention'], block['feed_forward']
    names = 'qkv', 'qkv_depthwise'
    thirds = [np.split(attention[name]['kernel'], 3, axis=-1) for name in names]
    q, k, v = zip(*thirds, strict=True)
    yield Step(
      phases.attention_sums,
      {'norm': norm1, 'q': q, 'k': k},
      ((x, phases.SUMS_HALO),),
      (),
      x.level,
      mixing=(attention['temperature'], attention['project_out']['kernel']),
    )
    parts = 'project_in', 'depthwise', 'project_out'
    kernels = tuple(feed_forward[part]['kernel'] for part in parts)
    yield Step(
      phases.block,
      {'norm1': norm1, 'v': v, 'norm2': norm2, 'feed_forward': kernels},
      ((x, phases.BLOCK_HALO),),
      (x,),
      x.level,
      mixes=True,
    )


def _refine(cfg, params, image):
  """Yields the steps of the refinement, which begins with `image`."""
  c = MapSpec('c', 0, cfg.recurrent_width)
  h = MapSpec('h', 0, cfg.recurrent_width, cfg.dtype)
  for number in range(cfg.steps):
    last = number == cfg.steps - 1
    state = ((c, phases.C_HALO), (h, phases.H_HALO)) if number else ()
    sources = (RAINY, phases.REFINE_HALO), (image, phases.REFINE_HALO), *state
    yield Step(
      phases.refine,
      params['progressive']['step'],
      sources,
      (FINAL,) if last else (_COARSE, c, h),
      0,
      static=(('dtype', cfg.dtype),),
      frees=(RAINY, _COARSE, c, h) if last else (),
    )
    image = _COARSE
