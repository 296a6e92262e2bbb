"""A study as tables, as JSON, and as a page with a chart and images."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixdtp_jax.evaluation.results import scores_as_dict
from mixdtp_jax.evaluation.score import mean_row
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.tables import Table
from mixdtp_jax.tools.compare.networks import Restored
from mixdtp_jax.tools.compare.study import Study
from mixdtp_jax.tools.pages.chart import Chart
from mixdtp_jax.tools.pages.page import picture, write_page


def summary(study: Study) -> str:
  """Returns versions and devices in one line."""
  environment = study.environment
  ours, theirs = environment['jax'], environment['torch']
  return (
    f'JAX {ours["version"]} on {ours["device"]}, PyTorch {theirs["version"]} '
    f'on {theirs["device"]} with {theirs["threads"]} threads; '
    f'{environment["cores"]} cores; {environment["precision"]}'
  )


def tables(study: Study) -> list[Table]:
  """Returns all numbers of a study, to be read."""
  return [_modules(study), _scores(study), _training(study)]


def _modules(study: Study) -> Table:
  return Table(
    'Outputs of modules',
    ('module', 'largest', 'mean', 'relative'),
    [
      (d.stage, f'{d.largest:.1e}', f'{d.mean:.1e}', f'{d.relative:.1e}')
      for d in study.stages
    ],
    '|JAX - PyTorch| over all images; relative: the largest difference divided '
    'by the largest magnitude of the output. Modules have their names in '
    'PyTorch; coarse and final are images.',
  )


def _scores(study: Study) -> Table:
  ours, theirs = mean_row(study.jax_rows), mean_row(study.torch_rows)
  rows = []
  for name, rainy in ours.input.items():
    jax, torch = ours.restored[name], theirs.restored[name]
    rows.append(
      (
        name,
        *(f'{s.psnr:.4f} / {s.ssim:.4f}' for s in (rainy, jax, torch)),
        f'{jax.psnr - torch.psnr:+.1e} / {jax.ssim - torch.ssim:+.1e}',
      )
    )
  return Table(
    'PSNR / SSIM',
    ('protocol', 'rainy', 'JAX', 'PyTorch', 'JAX - PyTorch'),
    rows,
    f'PSNR in dB; mean over {len(study.jax_rows)} images.',
  )


def _training(study: Study) -> Table:
  training = study.training
  losses = zip(training.jax_losses, training.torch_losses, strict=True)
  return Table(
    'Training from the same weights on the same batches',
    ('update', 'JAX', 'PyTorch', 'JAX - PyTorch'),
    [
      (str(number), f'{jax:.6f}', f'{torch:.6f}', f'{jax - torch:+.1e}')
      for number, (jax, torch) in enumerate(losses, start=1)
    ],
    'Loss before each update. After the last one, the distance between the '
    f'weights is {training.of_movement:.1e} of the distance that PyTorch moved '
    f"and {training.of_size:.1e} of the weights' norm. Adam divides each "
    'gradient by its own size, so rounding of the smallest counts in full.',
  )


def write_study(
  study: Study,
  settings: Mapping[str, Any],
  config: Mapping[str, Any],
  folder: pathlib.Path,
) -> list[pathlib.Path]:
  """Writes compare.json and compare.html, and returns their paths.

  Args:
    study: the numbers and images.
    settings: the command's options by name, for the record.
    config: the recipe of the updates, with the model, for the record.
    folder: is made if it is missing; files of those names are replaced.
  """
  paths = [folder / 'compare.json', folder / 'compare.html']
  dump_json(_content(study, settings, config), paths[0])
  updates = range(1, len(study.training.jax_losses) + 1)
  series = [
    ('JAX', updates, study.training.jax_losses),
    ('PyTorch', updates, study.training.torch_losses),
  ]
  write_page(
    'compare.html',
    paths[1],
    summary=summary(study),
    settings=settings,
    tables=tables(study),
    losses=Chart('Loss of the same batches', 'update', 'loss', series),
    images=_pictures(study.images),
  )
  return paths


def _content(study, settings, config) -> dict[str, Any]:
  """Returns the content of compare.json."""
  training = study.training
  return {
    'settings': settings,
    'config': config,
    'environment': study.environment,
    'stages': [
      dataclasses.asdict(d) | {'relative': d.relative} for d in study.stages
    ],
    'scores': [
      {
        'name': ours.name,
        'rainy': scores_as_dict(ours.input),
        'jax': scores_as_dict(ours.restored),
        'torch': scores_as_dict(theirs.restored),
      }
      for ours, theirs in zip(study.jax_rows, study.torch_rows, strict=True)
    ],
    'training': dataclasses.asdict(training)
    | {'of_movement': training.of_movement, 'of_size': training.of_size},
  }


def _pictures(images: Sequence[Restored]) -> list[dict[str, Any]]:
  """Returns the pictures of each image, with differences made visible."""
  between = [np.abs(image.jax - image.torch) for image in images]
  errors = [
    [np.abs(restored - image.clean) for restored in (image.jax, image.torch)]
    for image in images
  ]
  small, large = _factor(between), _factor(errors)
  return [
    {
      'name': image.name,
      'sliders': [
        (picture('rainy', image.rainy), picture('restored by JAX', image.jax)),
        (picture('JAX', image.jax), picture('PyTorch', image.torch)),
      ],
      'differences': [
        picture(f'|JAX - PyTorch|, {small:,} times', small * apart),
        picture(f'|JAX - clean|, {large:,} times', large * ours),
        picture(f'|PyTorch - clean|, {large:,} times', large * theirs),
      ],
    }
    for image, apart, (ours, theirs) in zip(
      images, between, errors, strict=True
    )
  ]


def _factor(maps: Sequence[np.ndarray]) -> int:
  """Returns the largest integer that leaves all maps within [0, 1]."""
  largest = max(float(np.max(m)) for m in maps)
  return max(1, int(1 / largest)) if largest else 1
