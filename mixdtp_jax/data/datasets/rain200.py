"""Rain200L and Rain200H: 1800 training and 200 test pairs each.

Yang et al., Deep Joint Rain Detection and Removal from a Single Image, CVPR
2017. Its authors published these sets later, to replace Rain100L and Rain100H.
Rain200L's test images are the training images of Rain100L.
"""

from mixdtp_jax.data.datasets.builder import PublishedPairs
from mixdtp_jax.data.layouts import Split, TwoFiles


def _splits(rainy: str) -> dict[str, Split]:
  """Returns the splits of a set with a rainy folder `rainy`, or rain."""
  layouts = [TwoFiles('input/{name}', 'target/{name}')]
  for folder in (rainy, f'{rainy}/X2', 'rain', 'rain/X2'):
    layouts += [
      TwoFiles(f'{folder}/{{i}}x2', 'norain/{i}'),
      TwoFiles(f'{folder}/norain-{{i}}x2', 'norain/norain-{i}'),
    ]
  return {
    'train': Split(('train',), tuple(layouts), (1800,)),
    'test': Split(('test',), tuple(layouts), (200,)),
  }


class Rain200L(PublishedPairs, skip_registration=True):
  """Rain200L, light rain: 1800 training and 200 test pairs."""

  name = 'rain200l'
  SPLITS = _splits('rain_L')


class Rain200H(PublishedPairs, skip_registration=True):
  """Rain200H, heavy rain: 1800 training and 200 test pairs."""

  name = 'rain200h'
  SPLITS = _splits('rain_H')
