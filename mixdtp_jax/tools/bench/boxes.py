"""The boxes that a network is made of, each to be run by itself.

A box is a call of a Flax module without what its own parts (modules again) do:
of a block, whose norms, attention and feed-forward are parts, the two sums.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.models.config import AnyConfig, PReNetConfig
from mixdtp_jax.models.factory import abstract_params, make_network
from mixdtp_jax.models.transformer import TransformerBlock, TransformerStage

# What the modules do apart from their parts; others go by their class's name.
KINDS = {
  'Conv3x3': 'conv3x3',
  'Conv1x1': 'conv1x1',
  'LayerNorm': 'layer_norm',
  'ChannelAttention': 'channel attention',
  'FeedForward': 'feed-forward',
  'TransformerBlock': 'residual sums',
  'RefinementStep': 'convlstm gates',
  'DetailDilation': 'resizing',
  'Downsample': 'pixel shuffle',
  'Upsample': 'pixel shuffle',
  'MHS': 'joining levels',
}
# They call others and do next to nothing themselves.
_CONTAINERS = {
  'MixDTP', 'PReNet', 'Restormer', 'MFE', 'TransformerStage',
  'ProgressiveRefinement', 'Kernel',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Box:
  """A box and the shapes it has; equal ones do equal work.

  Attributes:
    kind: a value of KINDS.
    module: not bound to a network.
    params: shapes of its own parameters, without those of its parts.
    inputs: shapes of its arguments.
    parts: shapes of what its parts return, in the order of their calls.
  """

  kind: str
  module: nn.Module
  params: dict[str, jax.ShapeDtypeStruct]
  inputs: tuple
  parts: tuple

  def __call__(self, params: dict, inputs: tuple, parts: tuple) -> tuple:
    """The box's own work: what its parts get, and what it returns.

    Args:
      params: its own parameters.
      inputs: its arguments.
      parts: what its parts return, instead of calling them.

    Returns:
      Arrays that it has computed, none that it was given.
    """
    given, got = iter(parts), []

    def stand_in(next_fun, args, kwargs, context):
      if not context.module.path:
        return next_fun(*args, **kwargs)
      got.append(args)
      return next(given)

    with nn.intercept_methods(stand_in):
      result = self.module.apply({'params': params}, *inputs)
    known = {id(leaf) for leaf in jax.tree.leaves((inputs, parts))}
    leaves = jax.tree.leaves((got, result))
    return tuple(leaf for leaf in leaves if id(leaf) not in known)


def find_boxes(cfg: AnyConfig, shape: tuple[int, ...]) -> dict[Box, int]:
  """The boxes of a network for images of a shape, and how often each runs.

  What the gradient computes anew with `remat` is not counted, and a fused
  feed-forward is taken apart.
  """
  if not isinstance(cfg, PReNetConfig):
    cfg = dataclasses.replace(cfg, fused_feed_forward=False)
  finder = _Finder()
  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  network = make_network(cfg)
  params = abstract_params(cfg)  # outside: it calls the modules too
  with nn.intercept_methods(finder.intercept):
    jax.eval_shape(
      lambda params, image: network.apply({'params': params}, image),
      params,
      image,
    )
  return finder.counts


class _Finder:
  """Sees the calls of modules while a network is traced."""

  def __init__(self):
    self.counts: dict[Any, int] = {}
    self._parts: list[list] = [[]]  # of the calls under way, results of parts

  def intercept(self, next_fun, args, kwargs, context):
    module = context.module
    if context.method_name != '__call__':  # the wrappers of scan and remat
      return next_fun(*args, **kwargs)
    outer = self.counts
    if isinstance(module, TransformerBlock | TransformerStage):
      self.counts = {}
    self._parts.append([])
    result = next_fun(*args, **kwargs)
    self._count(module, args, tuple(self._parts.pop()))
    self._parts[-1].append(_shapes(result))
    if isinstance(module, TransformerBlock):
      # The loop over the blocks may trace its body more than once.
      outer.clear()
      outer.update(self.counts)
    elif isinstance(module, TransformerStage):
      for box, count in self.counts.items():
        outer[box] = outer.get(box, 0) + count * module.blocks
    self.counts = outer
    return result

  def _count(self, module, args, parts):
    name = type(module).__name__
    if name in _CONTAINERS:
      return
    own = {
      key: value
      for key, value in module.variables.get('params', {}).items()
      if not isinstance(value, dict)
    }
    box = Box(
      KINDS.get(name, name),
      module.clone(parent=None, name=None),
      _Frozen(_shapes(own)),
      _shapes(args),
      parts,
    )
    self.counts[box] = self.counts.get(box, 0) + 1


class _Frozen(dict):
  """A dict of shapes that can be a key itself."""

  def __hash__(self):
    return hash(tuple(sorted((k, str(v)) for k, v in self.items())))


def _shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
