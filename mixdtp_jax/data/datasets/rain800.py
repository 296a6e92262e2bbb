"""Rain800: drawn rain on 800 photographs, each pair in one JPEG.

Zhang et al., Image De-raining Using a Conditional Generative Adversarial
Network, arXiv:1701.05957. Its 100 test pairs are the Test100 of Rain13K.
"""

from mixdtp_jax.data.datasets.builder import PublishedPairs
from mixdtp_jax.data.layouts import SideBySide, Split, TwoFiles

LAYOUTS = (
  SideBySide('{i}', rainy='right'),
  TwoFiles('input/{name}', 'target/{name}'),
)


class Rain800(PublishedPairs, skip_registration=True):
  """Rain800: 700 training and 100 test pairs."""

  name = 'rain800'
  SPLITS = {
    'train': Split(('train', 'training'), LAYOUTS, (700,)),
    'test': Split(('test', 'test_syn'), LAYOUTS, (100,)),
  }
