"""Reading of prepared data sets."""

from mixdtp_jax.data import images as images_lib
from mixdtp_jax.data.datasets.builder import PairsBuilder
from mixdtp_jax.data.tf import tfds


class PreparedPairs:
  """The pairs of one split of a prepared data set.

  Attributes:
    name: name of the data set, after 'part of ' if the split is incomplete.
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
    """Returns the number of pairs."""
    return len(self._records)

  def __getitem__(self, index: int) -> dict:
    """Returns the decoded pair, or its only side; see `Pairs`."""
    record = self._records[index]
    name = record['name'].decode()
    images = {s: images_lib.read_image(record[s], name) for s in self._sides}
    return {'name': name} | images

  def shape(self, index: int) -> tuple[int, int]:
    """Returns (H, W), which is stored with the image."""
    record = self._records[index]
    return int(record['height']), int(record['width'])
