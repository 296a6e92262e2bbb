"""bench profile: where the time of an update goes, and where it could be.

Each box of the network (see `boxes`) is timed by itself, once for each of its
shapes, and counted as often as it runs. In the network, XLA fuses neighbours
and chooses layouts for all of them; what a box costs by itself is an estimate
of its share, and the sum need not be the whole.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mixdtp_jax.measure import machine, timed
from mixdtp_jax.measure.flops import count_flops
from mixdtp_jax.measure.roofline import Roofline, measure_roofline, seconds_each
from mixdtp_jax.measure.timing import seconds
from mixdtp_jax.models.mixdtp import Outputs
from mixdtp_jax.recipe.losses import make_loss
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.console import progress, set_up_logging
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.tools.bench import subject
from mixdtp_jax.tools.bench.boxes import find_boxes
from mixdtp_jax.tools.bench.parts import Part, draw, measure_part, nbytes
from mixdtp_jax.training.step import apply_gradients


@dataclasses.dataclass(frozen=True)
class Piece:
  """A box, the loss or the optimizer.

  Attributes:
    kind: of work.
    shapes: of its arguments, to be read.
    count: runs in an update.
    forward: one of them.
    backward: the same; None where there is none.
  """

  kind: str
  shapes: str
  count: int
  forward: Part
  backward: Part | None


def bench_profile(
  *,
  config: str | None,
  crop: int,
  batch: str,
  overrides: Sequence[str],
  repeats: int,
  out: str | None,
) -> None:
  """Measures the machine, the parts of an update, and the update.

  Args:
    config: a file as in configs/, whose network, loss and optimizer they are;
      None is the default.
    crop: side of the images in pixels.
    batch: number of images.
    overrides: KNOB=VALUE, in the place of the config's.
    repeats: timed runs of each.
    out: JSON file to write; None writes none.

  Raises:
    FileNotFoundError, ValueError: a setting does not fit.
  """
  if repeats < 1:
    raise ValueError(f'--repeats {repeats}: needs at least 1')
  recipe, cfg = subject.load_recipe(config, overrides)
  subject.check_crop(cfg, crop)
  shape = (subject.parse_batch(batch), crop, crop, 3)
  set_up_logging()
  at = machine.describe()
  print(
    f'profile, {batch} x {crop}x{crop} pixels; {subject.describe(cfg)}\n'
    f'{machine.one_line(at)}',
    flush=True,
  )
  roofline = measure_roofline()
  print(_format_roofline(roofline), flush=True)
  whole = _measure_whole(recipe, cfg, shape, repeats)
  pieces = [
    *_measure_boxes(cfg, shape, roofline, repeats),
    _measure_loss(recipe, shape, roofline, repeats),
    _measure_optimizer(recipe, cfg, roofline, repeats),
  ]
  print(format_pieces(pieces, whole))
  if out is not None:
    content = {
      'what': 'profile',
      'machine': at,
      'crop': crop,
      'batch': shape[0],
      'roofline': dataclasses.asdict(roofline),
      'whole': whole,
      'pieces': [dataclasses.asdict(piece) for piece in pieces],
      'config': recipe.to_dict(),
    }
    dump_json(content, out)


def _measure_whole(recipe, cfg, shape, repeats) -> dict[str, list[float]]:
  """Seconds of the compiled network and of the compiled update."""
  params = subject.draw_params(cfg, recipe.seed)
  images = subject.draw_batch(*shape[:3], recipe.seed)
  mesh = make_mesh(jax.devices()[:1])
  made = {
    'inference': timed.make_inference(cfg, params, images['rainy'], mesh),
    'update': timed.make_training(recipe, params, images, mesh)[0],
  }
  return {
    name: [seconds(contender.run)[0] for _ in range(repeats)]
    for name, contender in made.items()
  }


def _measure_boxes(cfg, shape, roofline, repeats) -> list[Piece]:
  boxes = find_boxes(cfg, shape)
  report = progress('Box', len(boxes))
  pieces = []
  for number, (box, count) in enumerate(boxes.items(), 1):
    arguments = draw((dict(box.params), box.inputs, box.parts), seed=0)
    if jax.eval_shape(box, *arguments):  # else it has nothing to do
      forward, backward = measure_part(box, arguments, (), roofline, repeats)
      shapes = ', '.join(
        'x'.join(map(str, leaf.shape)) for leaf in jax.tree.leaves(box.inputs)
      )
      pieces.append(Piece(box.kind, shapes, count, forward, backward))
    report(number)
  return pieces


def _measure_loss(recipe, shape, roofline, repeats) -> Piece:
  loss = make_loss(**recipe.loss)
  rainy, clean = subject.draw_batch(*shape[:3], recipe.seed).values()
  forward, backward = measure_part(
    lambda outputs, clean: loss(outputs, clean)[0],
    (Outputs(jax.numpy.asarray(rainy), jax.numpy.asarray(clean)),),
    (jax.numpy.asarray(clean),),
    roofline,
    repeats,
  )
  return Piece('loss', 'x'.join(map(str, shape)), 1, forward, backward)


def _measure_optimizer(recipe, cfg, roofline, repeats) -> Piece:
  optimizer = make_optimizer(recipe)
  params = jax.tree.map(
    jax.numpy.asarray, subject.draw_params(cfg, recipe.seed)
  )
  gradients = jax.tree.map(jax.numpy.array, params)
  state = timed.initial_state(recipe, params)
  update = jax.jit(
    functools.partial(apply_gradients, optimizer=optimizer, ema_decay=0.0),
    donate_argnums=0,
  )
  flops = count_flops(update, state, gradients)

  def call():
    nonlocal state
    state = update(state, gradients)
    return state

  moved = 2 * nbytes(state) + nbytes(gradients)
  bound = roofline.bound('float32', flops, moved)
  part = Part(seconds_each(call, repeats), flops, moved, bound)
  return Piece('optimizer', 'all parameters', 1, part, None)


def _format_roofline(roofline: Roofline) -> str:
  rates = [
    f'{name} {max(rates) / 1e9:,.0f} GFLOP/s'
    for name, rates in roofline.flops.items()
  ]
  copied = f'{max(roofline.bytes) / 1e9:,.1f} GB/s'
  return f'Products: {", ".join(rates)}. Read and written: {copied}.'


def format_pieces(pieces: list[Piece], whole: dict[str, list[float]]) -> str:
  """A table by kind, forward and backward, and what is left of the whole.

  Args:
    pieces: all of an update.
    whole: seconds of 'inference' and of 'update', measured whole.
  """
  lines = [
    'Milliseconds of an update, each kind by itself; bound: by the machine; x: '
    'times the bound',
    _line('', 'runs', 'forward', 'bound', 'x', 'backward', 'bound', 'x',
          'GFLOP', 'GB', '% of sum'),
  ]  # fmt: skip
  totals = {}
  for piece in pieces:
    totals.setdefault(piece.kind, []).append(piece)
  everything = _total(pieces)
  for kind, found in sorted(
    totals.items(), key=lambda item: -_total(item[1])['seconds']
  ):
    lines.append(_row(kind, found, everything['seconds']))
  lines.append(_row('sum', pieces, everything['seconds']))
  forward = sum(
    p.count * p.forward.median for p in pieces if p.kind not in _LAST
  )
  for name, found, parts in (
    ('inference', whole['inference'], forward),
    ('update', whole['update'], everything['seconds']),
  ):
    median = float(np.median(found))
    lines.append(
      f'{name} measured whole: {1e3 * median:.1f} ms; its parts by themselves: '
      f'{1e3 * parts:.1f} ms; unaccounted: {1e3 * (median - parts):+.1f} ms'
    )
  lines.append(
    'By itself is an estimate: in the network XLA fuses neighbours, and what '
    'is read here may still lie in a cache.'
  )
  return '\n'.join(lines)


_LAST = ('loss', 'optimizer')  # no part of inference


def _total(pieces: list[Piece]) -> dict[str, Any]:
  both = [
    (piece.count, part)
    for piece in pieces
    for part in (piece.forward, piece.backward)
    if part is not None
  ]
  return {
    'seconds': sum(count * part.median for count, part in both),
    'flops': sum(count * part.flops for count, part in both),
    'bytes': sum(count * part.bytes for count, part in both),
  }


def _row(kind: str, pieces: list[Piece], all_seconds: float) -> str:
  cells = [sum(piece.count for piece in pieces)]
  for direction in ('forward', 'backward'):
    parts = [(p.count, getattr(p, direction)) for p in pieces]
    parts = [(count, part) for count, part in parts if part is not None]
    time = sum(count * part.median for count, part in parts)
    bound = sum(count * part.bound for count, part in parts)
    times = f'{time / bound:.1f}' if bound else '-'
    cells += [f'{1e3 * time:.1f}', f'{1e3 * bound:.1f}', times]
  total = _total(pieces)
  cells += [f'{total["flops"] / 1e9:.1f}', f'{total["bytes"] / 1e9:.2f}']
  return _line(kind, *cells, f'{100 * total["seconds"] / all_seconds:.1f}')


def _line(name, *cells) -> str:
  widths = (6, 10, 9, 7, 10, 9, 7, 9, 8, 10)
  return f'{name:<16}' + ''.join(
    f'{cell:>{width}}' for cell, width in zip(cells, widths, strict=True)
  )
