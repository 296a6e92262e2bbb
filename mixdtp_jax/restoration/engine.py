"""Restores whole images exactly, of any size, piece by piece."""

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from concurrent import futures

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.restoration import memory_plan, schedule, whole_image
from mixdtp_jax.restoration.maps import Map
from mixdtp_jax.restoration.pieces import Target, Windows, sweep
from mixdtp_jax.restoration.programs import Programs
from mixdtp_jax.restoration.shapes import Shapes

# Pieces that a CPU computes at the same time, at most.
_MOST_AT_ONCE = 8
_COMPILERS = 4  # threads


class Engine:
  """A network that restores images of any size within a budget of memory.

  The result is that of the whole image. It may be called from several threads,
  and computes one image after the other.
  """

  def __init__(
    self,
    cfg: AnyConfig,
    params: dict,
    *,
    memory: int | None = None,
    scratch: str | os.PathLike | None = None,
    dtype: str = 'float32',
    devices: Sequence[jax.Device] | None = None,
  ):
    """Puts the weights on the devices, and compiles nothing yet.

    Args:
      cfg: of the network.
      params: of the network.
      memory: bytes that this process may have in all; None for half of what is
        free.
      scratch: folder for what does not fit into them; None for the system's.
      dtype: of the convolutions, float32 or bfloat16.
      devices: of one kind, that share each image; None for all.
    """
    cfg = dataclasses.replace(cfg, dtype=dtype)
    devices = list(devices or jax.local_devices())
    on_cpu = devices[0].platform == 'cpu'
    self._memory, self._scratch = memory, scratch
    self._multiple = make_network(cfg).multiple
    self._steps = schedule.schedule(cfg)
    self._programs = Programs(devices)
    self._shapes = Shapes(len(devices), accelerator=not on_cpu)
    cores = min(os.cpu_count() or 1, _MOST_AT_ONCE)
    # An accelerator computes one piece while the next one is on its way.
    self._at_once = cores if on_cpu and len(devices) == 1 else 2
    self._threads = futures.ThreadPoolExecutor(self._at_once)
    self._params, self._mixing = [], []
    everywhere = NamedSharding(self._programs.mesh, PartitionSpec())
    placed = {}
    for step in self._steps:
      self._params.append(
        jax.tree.map(
          lambda w: _placed(w, params, everywhere, placed), step.params
        )
      )
      self._mixing.append([weight.of(params) for weight in step.mixing])
    self._lock = threading.Lock()

  def __call__(
    self,
    image: np.ndarray,
    progress: Callable[[float], None] | None = None,
  ) -> np.ndarray:
    """Restores an image.

    Args:
      image: (H, W, 3) float32 in [0, 1].
      progress: is called with the part that is done, up to 1.

    Returns:
      (H, W, 3) float32 in [0, 1].

    Raises:
      ValueError: the image has another shape, or `memory` is too small for it.
      OSError: a scratch file cannot be made.
    """
    image = np.asarray(image, np.float32)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
      raise ValueError(f'an image of shape {image.shape}: needs (H, W, 3)')
    with self._lock:
      return self._restored(image, progress or (lambda part: None))

  def _restored(self, image, progress):
    height, width, _ = image.shape
    padded = whole_image.pad(image[None], self._multiple, 1)[0]
    size = padded.shape[:2]
    grids = [self._grid(number, size) for number in range(len(self._steps))]
    budget = self._memory or memory_plan.half_of_free()
    memory_plan.check_compiling(budget)
    programs = self._compiled(grids)
    memory_plan.give_back()
    final = Map(np.empty((height, width, 3), np.float32))
    space = memory_plan.space_for_maps(
      budget, final.bytes_in_memory + self._working(programs, grids, width)
    )
    with memory_plan.MapRoom(space, self._scratch) as room:
      maps = {schedule.RAINY: Map(padded), schedule.FINAL: final}
      mix = ()
      for number, step in enumerate(self._steps):
        for spec in step.targets:
          if spec not in maps:
            shape = *(side >> spec.level for side in size), spec.channels
            maps[spec] = room.new(shape, spec.dtype)
        run = _with(programs[number], [self._params[number], *mix])
        mix = self._take(number, grids[number], run, maps)
        for spec in step.frees:
          if spec in maps and spec is not schedule.RAINY:
            room.drop(maps.pop(spec))
        progress((number + 1) / len(self._steps))
    return np.clip(final.array, 0, 1, out=final.array)

  def _grid(self, number, size):
    """Chooses the pieces of a step."""
    step = self._steps[number]
    return self._shapes.choose(
      step,
      tuple(side >> step.level for side in size),
      lambda grid: self._programs.has(*self._program(number, grid)),
    )

  def _program(self, number, grid):
    """Returns the function of a step, and shapes of its arguments."""
    step, devices = self._steps[number], self._programs.mesh.size
    pieces = [jax.ShapeDtypeStruct((devices, 4), np.int32)]
    for spec, halo in step.sources:
      scale = 1 << step.level - spec.level
      sides = (scale * side + 2 * halo for side in grid.core)
      shape = devices, *sides, spec.channels
      pieces.append(jax.ShapeDtypeStruct(shape, spec.dtype))
    common = [jax.tree.map(_shape, self._params[number])]
    if step.mixes:
      channels = step.sources[0][0].channels
      common.append(jax.ShapeDtypeStruct((channels, channels), np.float32))
    return step.function, step.static, common, pieces

  def _compiled(self, grids):
    """Returns the program of each step."""
    wanted = [self._program(*each) for each in enumerate(grids)]
    with futures.ThreadPoolExecutor(_COMPILERS) as pool:
      return list(pool.map(lambda args: self._programs.get(*args), wanted))

  def _working(self, programs, grids, width):
    """Returns the bytes that a step needs besides the maps, at most."""
    needs = []
    for step, grid, program in zip(self._steps, grids, programs, strict=True):
      analysis = program.memory_analysis()
      piece = (
        analysis.argument_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
      )
      # Of a map in a file, strips of rows are in memory: two of each source
      # with their halos, and one of each target.
      maps = [spec for spec, _ in step.sources] * 2 + list(step.targets)
      strips = sum(
        2 * grid.core[0] * (width >> step.level) * spec.channels * 4
        for spec in maps
      )
      needs.append((self._at_once + 1) * piece + strips)
    return max(needs)

  def _take(self, number, grid, run, maps):
    """Takes a step; returns what the next one takes of it, if anything."""
    step = self._steps[number]
    sources = [Windows(maps[spec], grid, halo) for spec, halo in step.sources]
    found = sweep(
      run, sources, grid, self._programs.mesh.size, self._threads, self._at_once
    )
    if not step.targets:
      return [_mixing_matrix(_total(found), *self._mixing[number])]
    targets = [Target(maps[spec], grid) for spec in step.targets]
    for row, column, results in found:
      for target, result in zip(targets, results, strict=True):
        target.put(row, column, result)
    return ()


def _placed(weight, params, sharding, placed):
  """Returns a weight on the devices, once for all steps that share it."""
  if weight not in placed:
    placed[weight] = jax.device_put(weight.of(params), sharding)
  return placed[weight]


def _shape(array):
  return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _with(program, common):
  """Returns a function of pieces alone, which waits for the results."""

  def run(*pieces):
    return [np.asarray(found) for found in program(common, list(pieces))]

  return run


def _total(found):
  """Adds up what was found of each piece, in float64."""
  total = 0
  for *_, results in found:
    total = total + np.concatenate([r.ravel() for r in results], dtype=float)
  return total


def _mixing_matrix(
  sums: np.ndarray, temperature: np.ndarray, projection: np.ndarray
) -> np.ndarray:
  """Makes attention and projection one matrix, as `ChannelAttention` does.

  Args:
    sums: of the whole image: the C x C products of the channels of q and k,
      the C squares of q, the C squares of k.
    temperature: (heads,).
    projection: (C, C).

  Returns:
    (C, C) float32.
  """
  channels, heads = len(projection), len(temperature)
  gram, *squares = np.split(sums, [channels**2, channels**2 + channels])
  each = channels // heads
  gram = gram.reshape(heads, each, heads, each)
  similarity = gram[np.arange(heads), :, np.arange(heads)]
  norm_q, norm_k = (
    np.sqrt(np.maximum(square, 1e-24)).reshape(heads, -1) for square in squares
  )
  similarity /= norm_q[:, :, None] * norm_k[:, None, :]
  similarity *= temperature[:, None, None]
  attention = np.exp(similarity - similarity.max(-1, keepdims=True))
  attention /= attention.sum(-1, keepdims=True)
  projected = attention.swapaxes(1, 2) @ projection.reshape(heads, each, -1)
  return projected.reshape(channels, channels).astype(np.float32)
