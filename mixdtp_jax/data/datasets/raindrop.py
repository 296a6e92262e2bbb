"""RainDrop: photographs through drops on a glass before the lens.

Qian et al., Attentive Generative Adversarial Network for Raindrop Removal from
a Single Image, CVPR 2018. It has two test sets: the well aligned test_a, which
papers use and which is 'test' here, and test_b.
"""

from mixdtp_jax.data.datasets.builder import PublishedPairs
from mixdtp_jax.data.layouts import Split, TwoFiles

LAYOUTS = (
  TwoFiles('data/{i}_rain', 'gt/{i}_clean'),
  TwoFiles('input/{name}', 'target/{name}'),
)


class RainDrop(PublishedPairs, skip_registration=True):
  """RainDrop: 861 training pairs, 58 of test_a ('test') and 249 of test_b."""

  name = 'raindrop'
  SPLITS = {
    'train': Split(('train',), LAYOUTS, (861,)),
    'test': Split(('test_a',), LAYOUTS, (58,)),
    'test_b': Split(('test_b',), LAYOUTS, (249,)),
  }
