"""bench inference: restoring images, beside PyTorch's forms of the network."""

from collections.abc import Sequence

from mixdtp_jax.measure import machine, timed
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.tools.bench import opponents, race, subject


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
  """Measures final images from rainy ones, with drawn weights.

  Args:
    config: a file as in configs/, whose network it is; None is the default.
    size: WIDTHxHEIGHT of the images in pixels; they are reflected up to what
      the network takes.
    batch: number of images.
    devices: that share the batch; more than one without opponents alone.
    overrides: KNOB=VALUE, in the place of the config's.
    repeats: timed runs of each, in turns with each opponent.
    against: the opponents; see `opponents.parse`.
    out: JSON file to write; None writes none.

  Raises:
    FileNotFoundError, ImportError, ValueError: a setting does not fit.
  """
  names = opponents.parse(against)
  recipe, cfg = subject.load_recipe(config, overrides)
  width, height = subject.parse_size(size)
  count = subject.parse_batch(batch)
  mesh = subject.share(devices, count, names)
  at, torch = machine.describe(), opponents.describe(names)
  params = subject.draw_params(cfg, recipe.seed)
  rainy = subject.draw_batch(count, height, width, recipe.seed)['rainy']
  rainy = whole_image.pad(rainy, make_network(cfg).multiple, devices)
  print(
    f'inference, {batch} x {width}x{height} pixels; {subject.describe(cfg)}\n'
    f'{machine.one_line(at, torch)}',
    flush=True,
  )
  with opponents.same_precision(names, cfg):
    ours = timed.make_inference(cfg, params, rainy, mesh)
    others = opponents.inference(names, cfg, params, rainy)
    result = race.race(ours, others, repeats)
  print(race.format_race(result))
  if out is not None:
    content = {
      'what': 'inference',
      'machine': at,
      'torch': torch,
      'width': width,
      'height': height,
      'batch': count,
      'devices': devices,
      **race.content(result),
      'config': recipe.to_dict(),
    }
    dump_json(content, out)
