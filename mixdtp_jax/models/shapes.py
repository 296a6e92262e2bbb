"""Shapes of the networks' parameters.

Flax knows them, too, but needs a second to trace a network, and some time to be
imported: too long before a picture is restored. tests/models/test_factory.py
compares the two.
"""

import functools
from typing import Any

import jax
import numpy as np

from mixdtp_jax.models.config import (
  AnyConfig,
  MixDTPConfig,
  PReNetConfig,
  UNetConfig,
)

RESIDUAL_BLOCKS = 5  # of a step of the refinement

Tree = dict[str, Any]


@functools.cache
def abstract_params(cfg: AnyConfig) -> Tree:
  """Returns the shapes and dtypes of a network's parameters.

  Nothing is computed. Every call returns the same tree: do not change it.
  """
  return jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
    _network(cfg),
    is_leaf=lambda shape: isinstance(shape, tuple),
  )


def _network(cfg: AnyConfig) -> Tree:
  if isinstance(cfg, PReNetConfig):
    return {'progressive': _refinement(cfg)}
  decoder = _decoder(cfg)
  if not isinstance(cfg, MixDTPConfig):
    return {'embed': _conv3x3(3, cfg.width), 'mfe': _encoder(cfg)} | decoder
  embed = _conv3x3(3, cfg.width)
  tree = {'embed': embed, 'mfe': _encoder(cfg), 'mhs': decoder}
  if cfg.detail_dilation:
    del tree['embed']
    tree['detail_dilation'] = {'zoom': _conv3x3(3, 3), 'embed': embed}
  if cfg.steps:
    tree['progressive'] = _refinement(cfg)
  return tree


def _conv3x3(inputs: int, outputs: int, bias: bool = False) -> Tree:
  kernel = {'kernel': (3, 3, inputs, outputs)}
  return kernel | {'bias': (outputs,)} if bias else kernel


def _stage(cfg: UNetConfig, level: int, blocks: int, times: int = 1) -> Tree:
  """Returns the shapes of a stage of `times` its level's channels."""
  c = times * cfg.level_width(level)
  hidden = int(c * cfg.ffn_expansion)

  def kernel(*shape):
    return {'kernel': (blocks, *shape)}

  norm = {'scale': (blocks, c), 'bias': (blocks, c)}
  attention = {
    'temperature': (blocks, cfg.heads[level]),
    'qkv': kernel(c, 3 * c),
    'qkv_depthwise': kernel(3, 3, 1, 3 * c),
    'project_out': kernel(c, c),
  }
  feed_forward = {
    'project_in': kernel(c, 2 * hidden),
    'depthwise': kernel(3, 3, 1, 2 * hidden),
    'project_out': kernel(hidden, c),
  }
  parts = {'attention': attention, 'feed_forward': feed_forward}
  return {'blocks': {'norm1': norm, 'norm2': norm} | parts}


def _encoder(cfg: UNetConfig) -> Tree:
  tree = {}
  for level, blocks in enumerate(cfg.encoder_blocks):
    tree[f'stage{level + 1}'] = _stage(cfg, level, blocks)
    if level:
      c = cfg.level_width(level - 1)
      tree[f'down{level}_{level + 1}'] = {'conv': _conv3x3(c, c // 2)}
  return tree


def _decoder(cfg: UNetConfig) -> Tree:
  mixdtp = isinstance(cfg, MixDTPConfig)
  # Restormer's finest level keeps all the channels.
  times = 1 if mixdtp else 2
  tree = {'to_image': _conv3x3(times * cfg.width, 3)}
  tree['refinement'] = _stage(cfg, 0, cfg.refinement_blocks, times)
  for level, blocks in enumerate(cfg.decoder_blocks):
    c = cfg.level_width(level)
    coarse = cfg.level_width(level + 1)
    tree[f'up{level + 2}_{level + 1}'] = {'conv': _conv3x3(coarse, 2 * coarse)}
    if level or mixdtp:
      tree[f'reduce{level + 1}'] = {'kernel': (2 * c, c)}
    stage = _stage(cfg, level, blocks, 1 if level else times)
    tree[f'stage{level + 1}'] = stage
  return tree


def _refinement(cfg: MixDTPConfig | PReNetConfig) -> Tree:
  r = cfg.recurrent_width
  step = {
    'conv_in': _conv3x3(6, r, bias=True),
    'gates': _conv3x3(2 * r, 4 * r, bias=True),
    'conv_out': _conv3x3(r, 3, bias=True),
  }
  for block in range(1, RESIDUAL_BLOCKS + 1):
    for number in (1, 2):
      step[f'residual{block}_{number}'] = _conv3x3(r, r, bias=True)
  return {'step': step}
