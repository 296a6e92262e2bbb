"""DDN-Data, also Rain1400: 14 rainy versions of each of 1,000 photographs.

Fu et al., Removing Rain from Single Images via a Deep Detail Network, CVPR
2017.
"""

from mixdtp_jax.data.datasets.builder import PublishedPairs
from mixdtp_jax.data.layouts import Split, TwoFiles

LAYOUTS = (
  TwoFiles('rainy_image/{i}_{k}', 'ground_truth/{i}'),
  TwoFiles('input/{name}', 'target/{name}'),
)


class Ddn(PublishedPairs, skip_registration=True):
  """DDN-Data: 12,600 training and 1,400 test pairs."""

  name = 'ddn'
  SPLITS = {
    'train': Split(('train', 'training'), LAYOUTS, (12_600,)),
    'test': Split(('test', 'testing'), LAYOUTS, (1_400,)),
  }
