"""What a network is: the numbers and switches that decide its parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Configuration of `MixDTP`; the default has 45,246,322 parameters.

  Levels are counted from the finest (full resolution) to the coarsest
  (1/8). Each switch at False (or `steps` at 0) turns one of the paper's ideas
  off, for ablations.

  Attributes:
    width: channels at the finest level; level i has width * 2**i.
    encoder_blocks: transformer blocks of MFE at each of the four levels.
    decoder_blocks: transformer blocks of MHS at levels 1, 2, 3 (fine to
      coarse).
    refinement_blocks: transformer blocks after the decoder.
    heads: attention heads at each of the four levels; each divides its
      level's channels.
    ffn_expansion: hidden channels of the gated feed-forward, as a multiple of
      the level's channels (rounded down).
    recurrent_width: channels of the progressive refinement.
    steps: iterations of the progressive refinement; 0 returns the coarse
      image as the final one and creates no parameters for it.
    detail_dilation: False embeds with a plain 3x3 convolution instead.
    coupling: False leaves out the second term of each decoder level.
    scan_unroll: transformer blocks of a stage compiled as one loop body. It
      changes compile time and speed, neither parameters nor results.
  """

  width: int = 64
  encoder_blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
  decoder_blocks: tuple[int, int, int] = (6, 6, 6)
  refinement_blocks: int = 4
  heads: tuple[int, int, int, int] = (1, 2, 4, 8)
  ffn_expansion: float = 2.66
  recurrent_width: int = 32
  steps: int = 3
  detail_dilation: bool = True
  coupling: bool = True
  scan_unroll: int = 1

  def __post_init__(self):
    """Raises ValueError for a network that cannot be built."""
    # ConfigDict and JSON hand over lists; a hashable config needs tuples.
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
    for name in (
      'width',
      'refinement_blocks',
      'recurrent_width',
      'scan_unroll',
    ):
      if getattr(self, name) < 1:
        raise ValueError(f'model.{name} = {getattr(self, name)}: needs >= 1')
    if self.steps < 0:
      raise ValueError(f'model.steps = {self.steps}: needs >= 0')
    if self.width % 2:
      raise ValueError(f'model.width = {self.width}: needs an even number')
    for level, heads in enumerate(self.heads):
      if self.level_width(level) % heads:
        raise ValueError(
          f'model.heads[{level}] = {heads} does not divide the '
          f'{self.level_width(level)} channels of its level'
        )

  def level_width(self, level: int) -> int:
    """Channels of level 0 (finest) to 3 (coarsest)."""
    return self.width * 2**level

  @classmethod
  def from_mapping(cls, mapping: Mapping[str, Any]) -> 'ModelConfig':
    """The config of a mapping with exactly this class's fields.

    Raises:
      ValueError: a field is missing or unknown, or a value does not fit.
    """
    fields = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(mapping) - fields):
      raise ValueError(f'unknown model fields: {", ".join(unknown)}')
    if missing := sorted(fields - set(mapping)):
      raise ValueError(f'missing model fields: {", ".join(missing)}')
    return cls(**mapping)
