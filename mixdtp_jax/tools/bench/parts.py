"""What a function costs by itself, forward and backward."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mixdtp_jax.measure.flops import count_flops
from mixdtp_jax.measure.roofline import Roofline, seconds_each


@dataclasses.dataclass(frozen=True)
class Part:
  """One direction of a function.

  Attributes:
    seconds: of a run, one a repeat.
    flops: of its convolutions and products; see `count_flops`.
    bytes: of what has to be read and written, each once: arguments and
      results; backward also the gradients of both.
    bound: seconds at the least, by the roofline.
  """

  seconds: tuple[float, ...]
  flops: float
  bytes: int
  bound: float

  @property
  def median(self) -> float:
    """Of the seconds."""
    return float(np.median(self.seconds))


def measure_part(
  function: Callable[..., Any],
  arguments: tuple,
  fixed: tuple,
  roofline: Roofline,
  repeats: int,
) -> tuple[Part, Part]:
  """A function forward, and its gradient backward from what forward kept.

  Args:
    function: of arguments and then fixed ones, to arrays.
    arguments: arrays, by which it is differentiated.
    fixed: arrays by which it is not.
    roofline: gives the bounds.
    repeats: timed runs of each.
  """

  def kept(*arguments):
    return jax.vjp(lambda *a: function(*a, *fixed), *arguments)

  results, pullback = jax.jit(kept)(*arguments)
  gradients = draw(jax.eval_shape(lambda: results), seed=1)
  moved = nbytes((arguments, fixed, results))
  dtype = _dtype(arguments)

  def part(call, moved, *given):
    jitted = jax.jit(call)
    flops = count_flops(jitted, *given)
    times = seconds_each(lambda: jitted(*given), repeats)
    return Part(times, flops, moved, roofline.bound(dtype, flops, moved))

  forward = part(function, moved, *arguments, *fixed)
  # The results' gradients are as large as the results.
  backward = part(
    lambda pullback, gradients: pullback(gradients),
    moved + nbytes(arguments),
    pullback,
    gradients,
  )
  return forward, backward


def _dtype(tree: Any) -> str:
  """In which the work is done: that of the largest array."""
  name = str(max(jax.tree.leaves(tree), key=lambda leaf: leaf.nbytes).dtype)
  return name if name == 'bfloat16' else 'float32'


def nbytes(tree: Any) -> int:
  """Of all arrays."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def draw(shapes: Any, seed: int) -> Any:
  """Arrays of these shapes, in [-0.5, 0.5]."""
  random = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jax.numpy.asarray(
      random.random(leaf.shape, np.float32) - 0.5, leaf.dtype
    ),
    shapes,
  )
