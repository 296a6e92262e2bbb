"""Rain100L and Rain100H: light and heavy rain, 100 test pairs each.

Yang et al., Deep Joint Rain Detection and Removal from a Single Image, CVPR
2017. In the published archive, names of training files end in x2. In copies
with PReNet's layout, the clean files lie beside a folder rainy/ or beside the
rainy files.

546 backgrounds of Rain100H's 1800 training pairs are also in its test set, as
PReNet's authors found (Ren et al., CVPR 2019); 1254 pairs remain without them.
"""

from mixdtp_jax.data.datasets.builder import PublishedPairs
from mixdtp_jax.data.layouts import Split, TwoFiles

FLAT = (
  TwoFiles('rainy/norain-{i}x2', 'norain-{i}'),
  TwoFiles('rainy/rain-{i}', 'norain-{i}'),
  TwoFiles('rain-{i}', 'norain-{i}'),
)
RENAMED = TwoFiles('input/{name}', 'target/{name}')
TRAIN = (TwoFiles('rain/norain-{i}x2', 'norain/norain-{i}'), *FLAT, RENAMED)
TEST = (TwoFiles('rain/rain-{i}', 'norain/norain-{i}'), *FLAT, RENAMED)


class Rain100L(PublishedPairs, skip_registration=True):
  """Rain100L as published: 200 training and 100 test pairs."""

  name = 'rain100l'
  SPLITS = {
    'train': Split(('train', 'RainTrainL'), TRAIN, (200,)),
    'test': Split(('test', 'Rain100L'), TEST, (100,)),
  }


class Rain100H(PublishedPairs, skip_registration=True):
  """Rain100H: 1800 training pairs, or PReNet's 1254, and 100 test pairs."""

  name = 'rain100h'
  SPLITS = {
    'train': Split(('train', 'RainTrainH'), TRAIN, (1800, 1254)),
    'test': Split(('test', 'Rain100H'), TEST, (100,)),
  }
