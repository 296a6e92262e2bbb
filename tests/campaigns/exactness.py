"""Restoring in pieces beside the network on whole images, of many sizes.

  python -m tests.campaigns.exactness --networks general,rain100l_small

Networks are recipes, with drawn weights; `general`, the shipped one; or any
other weights. The result is one row for each network and size: the largest
absolute difference of the clamped images. The exit status is 1 if one of them
is above 1e-5.
"""

import argparse
import sys

import numpy as np

from mixdtp_jax.models.factory import final_image
from mixdtp_jax.recipe.config_file import load_recipe
from mixdtp_jax.restoration import shapes
from mixdtp_jax.restoration.engine import Engine
from mixdtp_jax.restoration.whole_image import make_restore
from mixdtp_jax.tools.bench.case import draw_params
from mixdtp_jax.weights.load import load_weights
from tests.helpers import engines

_RECIPES = (
  'default',
  'rain100l_small',
  'prenet_rain100l',
  'restormer_rain100l',
)
_SIZES = '1x1,37x53,3x300,257x131,3000x200'
_MOST = 1e-5


def _network(name, fresh):
  if name not in _RECIPES:
    return load_weights(name)
  cfg = load_recipe(name, []).model
  return cfg, draw_params(cfg, 0) if fresh else engines.drawn(cfg)


def difference(cfg, params, size, kernels):
  """Returns the largest difference, and the range of the whole result."""
  image = engines.picture(*size)
  whole = make_restore(
    final_image(cfg),
    params,
    multiple=cfg.multiple,
    kernels=kernels,
  )
  expected = np.asarray(whole(image[None])[0])
  restored = Engine(cfg, params, kernels=kernels)(image)
  return np.abs(restored - expected).max(), np.ptp(expected)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--networks', default=','.join((*_RECIPES, 'general')))
  parser.add_argument('--sizes', default=_SIZES, help='HxW,...')
  parser.add_argument('--kernels', default='auto', choices=('auto', 'xla'))
  parser.add_argument(
    '--fresh',
    action='store_true',
    help='draw weights of the size of fresh ones; Restormer with others is no '
    'better determined than to 1e-4, by two kernels of the whole network, too',
  )
  parser.add_argument('--side', type=int, help='of pieces; default: their own')
  args = parser.parse_args()
  if args.side:
    shapes._SIDES = [(max(args.side >> level, 2),) for level in range(4)]
    shapes._REFINE_SIDES = (args.side,)
  largest = 0
  for name in args.networks.split(','):
    cfg, params = _network(name, args.fresh)
    for text in args.sizes.split(','):
      size = tuple(map(int, text.split('x')))
      found, spread = difference(cfg, params, size, args.kernels)
      largest = max(largest, found)
      row = f'{args.kernels:5} {name} {text}: {found:.1e} (of {spread:.2f})'
      print(row, flush=True)
  return int(largest > _MOST)


if __name__ == '__main__':
  sys.exit(main())
