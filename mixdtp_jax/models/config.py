"""The configurations of the networks: all that decides their parameters.

Their fields are the options `model.*` of recipes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from mixdtp_jax.runtime.options import Options, build, option

# Fields that say how a network is computed. Parameters do not depend on them.
EXECUTION = ('scan_unroll', 'dtype', 'remat', 'fused_feed_forward')


def _width(default: int) -> Any:
  return option(
    default,
    'channels at full resolution; each level below has twice as many',
    least=2,
    most=4096,
    multiple=2,
  )


def _decoder_blocks(*default: int) -> Any:
  return option(
    default,
    'transformer blocks of the decoder at the three finer levels, finest first',
    least=1,
    most=1000,
  )


def _recurrent_width(meaning: str) -> Any:
  return option(32, meaning, least=1, most=4096)


def _dtype() -> Any:
  return option(
    'float32',
    'type of convolutions and products (float32 is wider for wider images); '
    'parameters, images, norms and softmax are float32 in both',
    choices=('float32', 'bfloat16'),
  )


@dataclasses.dataclass(frozen=True)
class UNetConfig(Options):
  """The fields that MixDTPNet and Restormer share: a U-Net of four levels.

  Levels are counted from the finest (full resolution) to the coarsest (1/8).
  """

  prefix: ClassVar[str] = 'model.'
  multiple: ClassVar[int] = 8  # of the sides of images, which are halved thrice

  width: int = _width(64)
  encoder_blocks: tuple[int, int, int, int] = option(
    (4, 6, 6, 8),
    'transformer blocks of the encoder at each level, finest first',
    least=1,
    most=1000,
  )
  decoder_blocks: tuple[int, int, int] = _decoder_blocks(6, 6, 6)
  refinement_blocks: int = option(
    4, 'transformer blocks after the decoder', least=1, most=1000
  )
  heads: tuple[int, int, int, int] = option(
    (1, 2, 4, 8),
    "attention heads at each level; each number divides its level's channels",
    least=1,
    most=4096,
  )
  ffn_expansion: float = option(
    2.66,
    "hidden channels of the feed-forward, as a multiple of the level's "
    'channels (rounded down)',
    least=0,
    most=100,
  )
  scan_unroll: int = option(
    1,
    'transformer blocks of a stage compiled as one loop body; it changes '
    'compile time and speed, but neither parameters nor results',
    least=1,
    most=1000,
  )
  dtype: str = _dtype()
  remat: str = option(
    'none',
    'what the gradient computes again instead of keeping it: none; blocks, '
    'each transformer block and recurrent step from its inputs; or full, whole '
    'stages too',
    choices=('none', 'blocks', 'full'),
  )
  fused_feed_forward: bool = option(
    False,
    "the gradient computes each block's feed-forward again from its input; on "
    'a TPU (v5e, v5p, v6e) one kernel computes it for images that fit into '
    'VMEM',
  )

  def __post_init__(self):
    """Raises ValueError for a network that cannot be built."""
    super().__post_init__()
    widths = [self.level_width(level) for level in range(4)]
    self.require(
      all(w % n == 0 for w, n in zip(widths, self.heads, strict=True)),
      'heads',
      f'numbers that divide the channels {tuple(widths)} of their levels',
    )
    self.require(
      self.hidden_width(0) >= 1,
      'ffn_expansion',
      f'a number that gives at least one of {self.width} channels',
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
  """

  name: ClassVar[str] = 'mixdtp'

  recurrent_width: int = _recurrent_width(
    'channels of the progressive refinement'
  )
  steps: int = option(
    3,
    'iterations of the progressive refinement; 0 returns the coarse image as '
    'the final one and creates no parameters for it',
    least=0,
    most=1000,
  )
  detail_dilation: bool = option(
    True,
    'embed the image without its magnified fine detail; False embeds it with a '
    'plain 3x3 convolution',
  )
  coupling: bool = option(
    True, "add the encoder's input of the level below to each decoder level"
  )


@dataclasses.dataclass(frozen=True)
class RestormerConfig(UNetConfig):
  """Configuration of `Restormer`; the default has 26,126,644 parameters."""

  name: ClassVar[str] = 'restormer'

  width: int = _width(48)
  decoder_blocks: tuple[int, int, int] = _decoder_blocks(4, 6, 6)


@dataclasses.dataclass(frozen=True)
class PReNetConfig(Options):
  """Configuration of `PReNet`; the default has 168,963 parameters."""

  prefix: ClassVar[str] = 'model.'
  name: ClassVar[str] = 'prenet'
  multiple: ClassVar[int] = 1

  recurrent_width: int = _recurrent_width('channels')
  steps: int = option(6, 'iterations', least=1, most=1000)
  dtype: str = _dtype()
  remat: str = option(
    'none',
    'what the gradient computes again instead of keeping it: none; or blocks, '
    'each iteration from its inputs',
    choices=('none', 'blocks'),
  )


AnyConfig = MixDTPConfig | RestormerConfig | PReNetConfig
NETWORKS: dict[str, type[AnyConfig]] = {
  c.name: c for c in (MixDTPConfig, RestormerConfig, PReNetConfig)
}


def as_mapping(cfg: AnyConfig) -> dict[str, Any]:
  """Returns a config's fields and the network's name, as in `config.model`."""
  return {'name': cfg.name, **dataclasses.asdict(cfg)}


def make_model_config(mapping: Mapping[str, Any]) -> AnyConfig:
  """Makes the config of a mapping: 'name', and exactly that network's fields.

  Fields of EXECUTION may be missing: older files lack the newer ones.
  ValueError if the name is unknown, a field is missing or unknown, or a value
  is of another type or out of range.
  """
  values = dict(mapping)
  name = values.pop('name', None)
  if not isinstance(name, str) or name not in NETWORKS:
    raise ValueError(
      f'model.name = {name!r}: needs one of {", ".join(NETWORKS)}'
    )
  kind = NETWORKS[name]
  fields = {field.name for field in dataclasses.fields(kind)}
  return build(kind, values, required=fields - set(EXECUTION))
