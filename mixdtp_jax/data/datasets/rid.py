"""RID, Rain in Driving: real rain, without clean images.

Li et al., Single Image Deraining: A Comprehensive Benchmark Analysis, CVPR
2019. Frames of driving in rain, made for scores by detection of cars and
people.
"""

from mixdtp_jax.data.datasets.builder import PublishedPairs
from mixdtp_jax.data.layouts import Split, TwoFiles


class Rid(PublishedPairs, skip_registration=True):
  """RID: 2495 rainy images in one folder, without clean images."""

  name = 'rid'
  sides = ('rainy',)
  SPLITS = {'test': Split(('.',), (TwoFiles('{name}', ''),), (2495,))}
