"""The configurations of the networks: all that decides their parameters."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

# Fields that say how a network is computed. Parameters do not depend on them.
EXECUTION = ('scan_unroll', 'dtype', 'remat', 'fused_feed_forward')

DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class UNetConfig:
  """The fields that MixDTPNet and Restormer share: a U-Net of four levels.

  Levels are counted from the finest (full resolution) to the coarsest (1/8).

  Attributes:
    width: channels at the finest level, an even number; level i has
      width * 2**i.
    encoder_blocks: transformer blocks of the encoder at each level.
    decoder_blocks: transformer blocks of the decoder at the three finer
      levels, finest first.
    refinement_blocks: transformer blocks after the decoder.
    heads: attention heads at each of the four levels; each divides its
      level's channels.
    ffn_expansion: hidden channels of the gated feed-forward, as a multiple of
      the level's channels (rounded down).
    scan_unroll: transformer blocks of a stage compiled as one loop body. It
      changes compile time and speed, but neither parameters nor results.
    dtype: of convolutions and products, float32 (wider for wider images) or
      bfloat16. Parameters, images, norms and softmax are float32 in both.
    remat: what the gradient recomputes instead of storing it. none: nothing;
      blocks: each transformer block and recurrent step, from its inputs; full:
      whole stages too, from their inputs.
    fused_feed_forward: the gradient recomputes each block's feed-forward from
      its input; on a TPU (v5e, v5p, v6e) one kernel computes it if an image
      fits into VMEM. See ops/tpu/feed_forward.py.
  """

  width: int
  encoder_blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
  decoder_blocks: tuple[int, int, int] = (6, 6, 6)
  refinement_blocks: int = 4
  heads: tuple[int, int, int, int] = (1, 2, 4, 8)
  ffn_expansion: float = 2.66
  scan_unroll: int = 1
  dtype: str = 'float32'
  remat: str = 'none'
  fused_feed_forward: bool = False

  def __post_init__(self):
    """Raises ValueError for a network that cannot be built."""
    # ConfigDict and JSON give lists; a hashable config needs tuples.
    for name, length in (
      ('encoder_blocks', 4),
      ('decoder_blocks', 3),
      ('heads', 4),
    ):
      value = tuple(getattr(self, name))
      object.__setattr__(self, name, value)
      if len(value) != length or min(value) < 1:
        raise ValueError(
          f'model.{name} = {value}: needs {length} positive numbers'
        )
    _at_least(1, self, 'width', 'refinement_blocks', 'scan_unroll')
    _one_of(DTYPES, self, 'dtype')
    _one_of(('none', 'blocks', 'full'), self, 'remat')
    if self.width % 2:
      raise ValueError(f'model.width = {self.width}: needs an even number')
    for level, heads in enumerate(self.heads):
      if self.level_width(level) % heads:
        raise ValueError(
          f'model.heads[{level}] = {heads} does not divide the '
          f'{self.level_width(level)} channels of its level'
        )
    if not 1 <= self.width * self.ffn_expansion < math.inf:
      raise ValueError(
        f'model.ffn_expansion = {self.ffn_expansion}: needs a finite number '
        f'that gives at least one of {self.width} channels'
      )

  def level_width(self, level: int) -> int:
    """Returns the channels of level 0 (finest) to 3 (coarsest)."""
    return self.width * 2**level

  def hidden_width(self, level: int) -> int:
    """Returns the hidden channels of a feed-forward of that level."""
    return int(self.level_width(level) * self.ffn_expansion)


@dataclasses.dataclass(frozen=True)
class MixDTPConfig(UNetConfig):
  """Configuration of `MixDTP`; the default has 45,246,322 parameters.

  A False switch, or `steps` at 0, turns off one of the paper's ideas, for
  ablations.

  Attributes:
    recurrent_width: channels of the progressive refinement.
    steps: iterations of the progressive refinement; 0 returns the coarse
      image as the final one and creates no parameters for it.
    detail_dilation: embed the image without its magnified fine detail; False
      embeds it with a plain 3x3 convolution.
    coupling: add the encoder's input of the level below to each decoder level.
  """

  name: ClassVar[str] = 'mixdtp'

  width: int = 64
  recurrent_width: int = 32
  steps: int = 3
  detail_dilation: bool = True
  coupling: bool = True

  def __post_init__(self):
    """Raises ValueError for a network that cannot be built."""
    super().__post_init__()
    _at_least(1, self, 'recurrent_width')
    _at_least(0, self, 'steps')


@dataclasses.dataclass(frozen=True)
class RestormerConfig(UNetConfig):
  """Configuration of `Restormer`; the default has 26,126,644 parameters."""

  name: ClassVar[str] = 'restormer'

  width: int = 48
  decoder_blocks: tuple[int, int, int] = (4, 6, 6)


@dataclasses.dataclass(frozen=True)
class PReNetConfig:
  """Configuration of `PReNet`; the default has 168,963 parameters.

  Attributes:
    recurrent_width: channels.
    steps: iterations, at least 1.
    dtype: see `UNetConfig`.
    remat: what the gradient recomputes instead of storing it. none: nothing;
      blocks: each iteration, from its inputs.
  """

  name: ClassVar[str] = 'prenet'

  recurrent_width: int = 32
  steps: int = 6
  dtype: str = 'float32'
  remat: str = 'none'

  def __post_init__(self):
    """Raises ValueError for a network that cannot be built."""
    _at_least(1, self, 'recurrent_width', 'steps')
    _one_of(DTYPES, self, 'dtype')
    _one_of(('none', 'blocks'), self, 'remat')


AnyConfig = MixDTPConfig | RestormerConfig | PReNetConfig


def _at_least(minimum, cfg, *names):
  for name in names:
    if getattr(cfg, name) < minimum:
      raise ValueError(
        f'model.{name} = {getattr(cfg, name)}: needs >= {minimum}'
      )


def _one_of(choices, cfg, name):
  if getattr(cfg, name) not in choices:
    raise ValueError(
      f'model.{name} = {getattr(cfg, name)!r}: choose from {", ".join(choices)}'
    )


def as_mapping(cfg: AnyConfig) -> dict[str, Any]:
  """Returns a config's fields and the network's name, as in `config.model`."""
  return {'name': cfg.name, **dataclasses.asdict(cfg)}


def make_model_config(mapping: Mapping[str, Any]) -> AnyConfig:
  """Makes the config of a mapping: 'name', and exactly that network's fields.

  Fields of EXECUTION may be missing: older files lack the newer ones.

  Raises:
    ValueError: the name is unknown, a field is missing or unknown, or a value
      has the wrong type or is out of range.
  """
  values = dict(mapping)
  name = values.pop('name', None)
  classes = {c.name: c for c in (MixDTPConfig, RestormerConfig, PReNetConfig)}
  if not isinstance(name, str) or name not in classes:
    raise ValueError(f'model.name = {name!r}: choose from {", ".join(classes)}')
  fields = {f.name: f.default for f in dataclasses.fields(classes[name])}
  if unknown := sorted(set(values) - set(fields)):
    raise ValueError(f'unknown fields of model {name}: {", ".join(unknown)}')
  if missing := sorted(set(fields) - set(values) - set(EXECUTION)):
    raise ValueError(f'missing fields of model {name}: {", ".join(missing)}')
  for field, value in values.items():
    if not _like(value, fields[field]):
      raise ValueError(
        f'model.{field} = {value!r}: needs a value like {fields[field]!r}'
      )
  return classes[name](**values)


def _like(value: Any, default: Any) -> bool:
  """Returns whether a value has the type of a default; JSON has no tuples."""
  if isinstance(default, tuple):
    return isinstance(value, list | tuple) and all(_like(n, 1) for n in value)
  if type(value) is int:  # no size of an array has more than 31 bits
    return type(default) in (int, float) and abs(value) < 2**31
  return type(value) is type(default)
