"""The prepared copy of a data set, read back."""

from mixdtp_jax.data import images as images_lib
from mixdtp_jax.data.datasets.builder import PairsBuilder
from mixdtp_jax.data.tf import tfds


class PreparedPairs:
  """One split of a prepared data set; a `folders.Pairs`.

  Attributes:
    name: of the data set, or 'part of' it where pairs of the split are missing.
  """

  def __init__(self, builder: PairsBuilder, split: str):
    """Opens a split.

    Raises:
      ValueError: there is no such split.
    """
    if split not in builder.info.splits:
      raise ValueError(
        f'{builder.name} has no split {split!r}, only '
        f'{", ".join(sorted(builder.info.splits))}'
      )
    size = builder.info.splits[split].num_examples
    whole = size in builder.counts.get(split, (size,))
    self.name = builder.name if whole else f'part of {builder.name}'
    self._sides = builder.sides
    self._records = builder.as_data_source(
      split, decoders=dict.fromkeys(self._sides, tfds.decode.SkipDecoding())
    )

  def __len__(self) -> int:
    """Number of pairs."""
    return len(self._records)

  def __getitem__(self, index: int) -> dict:
    """The decoded pair, or the side that there is; see `folders.Pairs`."""
    record = self._records[index]
    name = record['name'].decode()
    images = {s: images_lib.read_image(record[s], name) for s in self._sides}
    return {'name': name} | images

  def shape(self, index: int) -> tuple[int, int]:
    """(H, W), as stored beside the image."""
    record = self._records[index]
    return int(record['height']), int(record['width'])
