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
from mixdtp_jax.restoration import memory_plan, pieces
from mixdtp_jax.restoration.maps import Map
from mixdtp_jax.restoration.programs import Programs
from mixdtp_jax.restoration.shapes import Shapes
from mixdtp_jax.restoration.steps import FINAL, RAINY, steps_of

# Pieces that a CPU computes at the same time, at most.
_MOST_AT_ONCE = 8

Progress = Callable[[float], None]


class Engine:
  """A network that restores images of any size within a budget of memory.

  The result is that of the whole image. An engine may be called from several
  threads, and computes one image after the other.
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
      memory: bytes that this process may hold in all; None for half of what is
        free.
      scratch: folder for what does not fit into them; None for the system's.
      dtype: of the convolutions, float32 or bfloat16.
      devices: of one kind, that share each image; None for all.
    """
    cfg = dataclasses.replace(cfg, dtype=dtype)
    devices = list(devices or jax.local_devices())
    on_cpu = devices[0].platform == 'cpu'
    self._memory, self._scratch = memory, scratch
    self._multiple = cfg.multiple
    self._steps = steps_of(cfg)
    self._programs = Programs(devices)
    self._shapes = Shapes(len(devices), accelerator=not on_cpu)
    cores = min(os.cpu_count() or 1, _MOST_AT_ONCE)
    # An accelerator computes one piece while the next one is on its way.
    self._at_once = cores + 1 if on_cpu and len(devices) == 1 else 2
    self._threads = futures.ThreadPoolExecutor(self._at_once)
    self._weights = _weights(self._steps, params, self._programs.mesh)
    self._mixing = [[w.of(params) for w in s.mixing] for s in self._steps]
    each = zip(self._steps, self._weights, strict=True)
    self._kinds = [self._programs.kind(*pair) for pair in each]
    self._lock = threading.Lock()
    self._held = memory_plan.held()

  def __call__(
    self, image: np.ndarray, progress: Progress | None = None
  ) -> np.ndarray:
    """Restores an image.

    Args:
      image: (H, W, 3) float32 in [0, 1].
      progress: is called with the part that is done, up to 1.

    Returns:
      (H, W, 3) float32 in [0, 1].

    Raises:
      ValueError: the image has another shape, or too little memory is allowed.
      OSError: a scratch file cannot be made or written.
    """
    image = np.asarray(image, np.float32)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
      raise ValueError(f'an image of shape {image.shape}: needs (H, W, 3)')
    with self._lock:
      padded = _padded(image, self._multiple)
      grids, programs, room = self._prepared(padded.shape[:2])
      final = np.empty(image.shape, np.float32)
      with memory_plan.MapRoom(room, self._scratch) as maps:
        maps.add(RAINY, Map(padded))
        maps.add(FINAL, Map(final))
        del padded
        self._take_steps(grids, programs, maps, progress or (lambda part: None))
      return np.clip(final, 0, 1, out=final)

  def check(self, height: int, width: int, others: int) -> None:
    """Checks that there is enough memory for an image of H x W pixels.

    Args:
      height: H.
      width: W.
      others: bytes that hold the image and its result, beside the engine's.

    Raises:
      ValueError: too little is allowed; the message says how much is needed.
    """
    size = tuple(s + -s % self._multiple for s in (height, width))
    self._room(size, self._grids(size), self._held + others)

  @property
  def programs(self) -> int:
    """How many programs were compiled, not counting those kept from before."""
    return self._programs.compiled

  def _grids(self, size):
    """Returns the pieces of each step."""
    return [
      self._shapes.choose(
        step,
        tuple(side >> step.level for side in size),
        self._programs.cores(kind),
      )
      for step, kind in zip(self._steps, self._kinds, strict=True)
    ]

  def _room(self, size, grids, others):
    """Returns the bytes for maps, beside what `others` hold."""
    kinds = zip(self._kinds, grids, strict=True)
    return memory_plan.room_for_maps(
      self._steps,
      grids,
      size,
      at_once=self._at_once,
      memory=self._memory or memory_plan.half_of_free(),
      compiled=all(g.core in self._programs.cores(kind) for kind, g in kinds),
      others=others,
    )

  def _prepared(self, size):
    """Returns pieces and program of each step, and the bytes for maps."""
    grids = self._grids(size)
    self._room(size, grids, memory_plan.held())  # before the work of compiling
    for step, grid in zip(self._steps, grids, strict=True):
      self._shapes.count(step, grid)
    cores = [grid.core for grid in grids]
    programs = self._programs.get(list(zip(self._kinds, cores, strict=True)))
    memory_plan.give_back()
    return grids, programs, self._room(size, grids, memory_plan.held())

  def _take_steps(self, grids, programs, maps, progress):
    """Takes all steps, and tells the progress after each piece."""
    each = [
      self._shapes.seconds(step, grid) / len(grid)
      for step, grid in zip(self._steps, grids, strict=True)
    ]
    total = sum(s * len(grid) for s, grid in zip(each, grids, strict=True))
    size = maps[RAINY].shape[:2]
    done, mix = 0, ()
    for number, (step, grid) in enumerate(zip(self._steps, grids, strict=True)):
      run = _with(programs[number], [self._weights[number], *mix])
      windows = [
        pieces.Windows(maps[spec], grid, halo) for spec, halo in step.sources
      ]
      targets = [
        pieces.Target(maps.get(spec, size), grid) for spec in step.targets
      ]
      sums = 0
      for row, column, results in pieces.sweep(
        run,
        windows,
        grid,
        devices=self._programs.mesh.size,
        threads=self._threads,
        at_once=self._at_once,
      ):
        if not targets:
          sums = sums + results[0].astype(np.float64)
        for target, result in zip(targets, results, strict=False):
          target.put(row, column, result)
        done += each[number]
        progress(min(done / total, 1))
      mix = [] if targets else [mixing_matrix(sums, *self._mixing[number])]
      maps.drop(step.frees)


def _weights(steps, params, mesh):
  """Returns the weights of each step on all devices."""
  everywhere = NamedSharding(mesh, PartitionSpec())
  placed = {}

  def place(weight):
    if weight not in placed:
      placed[weight] = jax.device_put(weight.of(params), everywhere)
    return placed[weight]

  return [jax.tree.map(place, step.params) for step in steps]


def _padded(image, multiple):
  """Reflects the bottom and the right, as `whole_image.pad` does."""
  sides = [(0, -side % multiple) for side in image.shape[:2]]
  return (
    np.pad(image, [*sides, (0, 0)], mode='reflect') if np.any(sides) else image
  )


def _with(program, common):
  """Returns a function of pieces alone, which waits for the results."""

  def run(*arrays):
    return [np.asarray(found) for found in program(common, list(arrays))]

  return run


def mixing_matrix(
  sums: np.ndarray, temperature: np.ndarray, projection: np.ndarray
) -> np.ndarray:
  """Makes attention and projection one matrix, as `ChannelAttention` does.

  Args:
    sums: as of `ops.windows.attention_sums`, of the whole image.
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
