"""What a comparison found, as tables and as a page with a chart and images."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixdtp_jax.measure import machine
from mixdtp_jax.runtime.tables import Table
from mixdtp_jax.tools.compare.networks import Restored
from mixdtp_jax.tools.pages.chart import Chart
from mixdtp_jax.tools.pages.page import picture, write_page

Found = Mapping[str, Any]  # see command._study


def summary(found: Found) -> str:
  """Returns versions and devices in one line."""
  where = found['environment']
  return f'{machine.one_line(where, where["torch"])}; {where["precision"]}'


def tables(found: Found) -> list[Table]:
  """Returns all numbers, to be read."""
  training = found['training']
  columns = ('largest', 'mean', 'relative')
  losses = zip(training['jax_losses'], training['torch_losses'], strict=True)
  return [
    Table(
      'Outputs of modules',
      ('module', *columns),
      [
        (d['stage'], *(f'{d[column]:.1e}' for column in columns))
        for d in found['stages']
      ],
      '|JAX - PyTorch| over all images; relative: the largest difference '
      'divided by the largest magnitude of the output. Modules have their '
      'names in PyTorch; coarse and final are images.',
    ),
    _scores(found),
    Table(
      'Training from the same weights on the same batches',
      ('update', 'JAX', 'PyTorch', 'JAX - PyTorch'),
      [
        (str(number), f'{jax:.6f}', f'{torch:.6f}', f'{jax - torch:+.1e}')
        for number, (jax, torch) in enumerate(losses, start=1)
      ],
      'Loss before each update. After the last one, the distance between the '
      f'weights is {training["of_movement"]:.1e} of the distance that PyTorch '
      f"moved and {training['of_size']:.1e} of the weights' norm. Adam divides "
      'each gradient by its own size, so rounding of the smallest counts in '
      'full.',
    ),
  ]


def _scores(found: Found) -> Table:
  mean, rows = found['mean'], []
  for name in mean['rainy']:
    sides = [mean[which][name] for which in ('rainy', 'jax', 'torch')]
    both = [f'{s["psnr"]:.4f} / {s["ssim"]:.4f}' for s in sides]
    psnr, ssim = (sides[1][k] - sides[2][k] for k in ('psnr', 'ssim'))
    rows.append((name, *both, f'{psnr:+.1e} / {ssim:+.1e}'))
  return Table(
    'PSNR / SSIM',
    ('protocol', 'rainy', 'JAX', 'PyTorch', 'JAX - PyTorch'),
    rows,
    f'PSNR in dB; mean over {len(found["scores"])} images.',
  )


def write_html(
  path: pathlib.Path,
  found: Found,
  images: Sequence[Restored],
  settings: Mapping[str, Any],
) -> None:
  """Writes compare.html."""
  losses = [found['training'][f'{side}_losses'] for side in ('jax', 'torch')]
  updates = range(1, len(losses[0]) + 1)
  series = [('JAX', updates, losses[0]), ('PyTorch', updates, losses[1])]
  write_page(
    'compare.html',
    path,
    summary=summary(found),
    settings=settings,
    tables=tables(found),
    losses=Chart('Loss of the same batches', 'update', 'loss', series),
    images=_pictures(images),
  )


def _pictures(images: Sequence[Restored]) -> list[dict[str, Any]]:
  """Returns the pictures of each image, with differences made visible."""
  between = [np.abs(image.jax - image.torch) for image in images]
  errors = [
    [np.abs(restored - image.clean) for restored in (image.jax, image.torch)]
    for image in images
  ]
  small = _factor(between)
  large = _factor([one for pair in errors for one in pair])
  return [
    {
      'name': image.name,
      'sliders': [
        (picture('rainy', image.rainy), picture('restored by JAX', image.jax)),
        (picture('JAX', image.jax), picture('PyTorch', image.torch)),
      ],
      'differences': [
        picture(f'|JAX - PyTorch|, {small:,} times', small * between[i]),
        picture(f'|JAX - clean|, {large:,} times', large * errors[i][0]),
        picture(f'|PyTorch - clean|, {large:,} times', large * errors[i][1]),
      ],
    }
    for i, image in enumerate(images)
  ]


def _factor(maps: Sequence[np.ndarray]) -> int:
  """Returns the largest integer that leaves all maps within [0, 1]."""
  largest = max(float(np.max(m)) for m in maps)
  return max(1, int(1 / largest)) if largest else 1
