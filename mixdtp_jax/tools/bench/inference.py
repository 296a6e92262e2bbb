"""bench inference: restoring images, beside variants in PyTorch."""

import functools
from collections.abc import Sequence

from mixdtp_jax.measure import timed
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.runtime.tables import show
from mixdtp_jax.tools.bench import case, comparison, torch_variants


def bench_inference(
  *,
  config: str | None,
  size: str,
  batch: str,
  devices: int,
  overrides: Sequence[str],
  repeats: int,
  against: str,
  out: str | None,
) -> None:
  """Measures how a network with drawn weights restores images.

  The arguments are the options of the command.

  Raises:
    FileNotFoundError, ImportError, ValueError: a setting does not fit.
  """
  names = torch_variants.parse(against)
  recipe, cfg = case.load_recipe(config, overrides)
  width, height = case.parse_size(size)
  count = case.parse_number('batch', batch)
  mesh = case.make_shared_mesh(devices, count, names)
  torch = torch_variants.describe(names)
  machine = case.announce(
    f'inference, {batch} x {width}x{height} pixels; {case.describe(cfg)}', torch
  )
  params = case.draw_params(cfg, recipe.seed)
  rainy = case.draw_batch(count, height, width, recipe.seed)['rainy']
  rainy = whole_image.pad(rainy, make_network(cfg).multiple, devices)
  with torch_variants.same_precision(names, cfg):
    found = comparison.compare(
      timed.make_inference(cfg, params, rainy, mesh),
      {
        name: functools.partial(
          torch_variants.make_inference, name, cfg, params, rainy
        )
        for name in names
      },
      repeats,
    )
  show(comparison.table(found))
  case.write(
    out,
    recipe,
    what='inference',
    machine=machine,
    torch=torch,
    width=width,
    height=height,
    batch=count,
    devices=devices,
    **found,
  )
