"""Restores whole images exactly, of any size, piece by piece."""

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.restoration import memory_plan, pieces
from mixdtp_jax.restoration.programs import Programs
from mixdtp_jax.restoration.shapes import Shapes
from mixdtp_jax.restoration.steps import FINAL, RAINY, Step, steps_of

# Pieces that a CPU computes at the same time, at most.
_MOST_AT_ONCE = 8

Progress = Callable[[float], None]


class Engine:
  """A network that restores images of any size within a budget of memory.

  Several threads may call it; it computes one image after the other.
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
    kernels: str = 'auto',
  ):
    """Puts the weights on the devices, and compiles nothing yet.

    Args:
      cfg: of the network.
      params: of the network.
      memory: as `mixdtp_jax.load` has it.
      scratch: likewise.
      dtype: of the convolutions, float32 or bfloat16.
      devices: of one kind, that share each image; None for all.
      kernels: the option of a recipe.
    """
    if memory is not None and memory <= 0:
      raise ValueError(f'memory = {memory}: needs a number of bytes, or None')
    cfg = dataclasses.replace(cfg, dtype=dtype)
    devices = list(devices or jax.local_devices())
    on_cpu = devices[0].platform == 'cpu'
    self._memory, self._scratch = memory, scratch
    self._multiple = cfg.multiple
    self._programs = Programs(devices, kernels=kernels)
    with _device_memory():
      self._steps = _on_devices(steps_of(cfg, params), self._programs.mesh)
    self._shapes = Shapes(len(devices), accelerator=not on_cpu)
    cores = min(os.cpu_count() or 1, _MOST_AT_ONCE)
    # An accelerator computes one piece while the next one is on its way.
    self._at_once = cores + 1 if on_cpu and len(devices) == 1 else 2
    self._threads = futures.ThreadPoolExecutor(self._at_once)
    self._lock = threading.Lock()
    self._held = memory_plan.held()

  def __call__(
    self,
    image: np.ndarray,
    progress: Progress | None = None,
    beside: int = 0,
  ) -> np.ndarray:
    """Restores an image (H, W, 3), float32 in [0, 1], to the same.

    `progress` is called with the part that is done, up to 1; `beside` are bytes
    that others may take meanwhile.

    Raises:
      ValueError: the image has another shape, or too little memory is allowed.
      MemoryError: a device has too little memory.
      OSError: a scratch file cannot be made or written.
    """
    image = np.asarray(image, np.float32)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
      raise ValueError(f'an image of shape {image.shape}: needs (H, W, 3)')
    with self._lock, _device_memory():
      sides = [(0, -side % self._multiple) for side in image.shape[:2]]
      padded = image  # and reflected, as `whole_image.pad` does
      if np.any(sides):
        padded = np.pad(image, [*sides, (0, 0)], mode='reflect')
      size = padded.shape[:2]
      plan = self._plan(size)
      self._room(size, plan, memory_plan.held())  # before the work of compiling
      for step, grid in plan:
        self._shapes.count(step, grid)
      programs = self._programs.get([(step, grid.core) for step, grid in plan])
      memory_plan.give_back()
      room = self._room(size, plan, memory_plan.held(), beside)
      final = np.empty(image.shape, np.float32)
      with contextlib.closing(
        memory_plan.MapRoom(size, room, self._scratch)
      ) as maps:
        maps |= {RAINY: padded, FINAL: final}
        del padded
        self._take_steps(plan, programs, maps, progress or (lambda part: None))
      return np.clip(final, 0, 1, out=final)

  def check(self, height: int, width: int, others: int) -> None:
    """Raises ValueError if the memory is too small for H x W pixels.

    `others` are bytes that hold the image and its result, beside the engine's.
    """
    size = tuple(s + -s % self._multiple for s in (height, width))
    self._room(size, self._plan(size), self._held + others)

  @property
  def programs(self) -> int:
    """How many programs were compiled, not counting those kept from before."""
    return self._programs.compiled

  def _plan(self, size) -> list[tuple[Step, pieces.Grid]]:
    """Returns the steps, and the pieces in which each computes an image."""
    plan = []
    for step in self._steps:
      sides = tuple(side >> step.level for side in size)
      cores = self._programs.cores(step)
      plan.append((step, self._shapes.choose(step, sides, cores)))
    return plan

  def _room(self, size, plan, others, beside=0):
    """Returns the bytes for maps; see `memory_plan.room_for_maps`."""
    return memory_plan.room_for_maps(
      plan,
      size,
      at_once=self._at_once,
      memory=self._memory or memory_plan.half_of_free(),
      compiled=all(g.core in self._programs.cores(step) for step, g in plan),
      others=others,
      beside=beside,
    )

  def _take_steps(self, plan, programs, maps, progress):
    """Takes all steps, and tells the progress after each piece."""
    times = [self._shapes.seconds(*pair) for pair in plan]
    done, mix = 0.0, list[np.ndarray]()
    for program, (step, grid), seconds in zip(
      programs, plan, times, strict=True
    ):
      windows = [
        pieces.Windows(maps[spec], grid, halo) for spec, halo in step.sources
      ]
      targets = [pieces.Target(maps[spec], grid) for spec in step.targets]
      sums = 0
      for row, column, results in pieces.sweep(
        functools.partial(_run, program, [step.params, *mix]),
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
        done += seconds / len(grid)
        progress(min(done / sum(times), 1))
      mix = [] if targets else [_mixing_matrix(sums, *step.mixing)]
      maps.drop(step.frees)


@contextlib.contextmanager
def _device_memory() -> Iterator[None]:
  """Raises MemoryError, with advice, if a device has too little memory."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise MemoryError(
      'the device has too little memory: close other programs that use it, '
      'allow less with --memory, or try --dtype bfloat16'
    ) from error


def _on_devices(steps, mesh):
  """Returns steps whose parameters lie, once each, on all devices."""
  leaves = {
    id(leaf): leaf for step in steps for leaf in jax.tree.leaves(step.params)
  }
  placed = jax.device_put(leaves, NamedSharding(mesh, PartitionSpec()))
  return [
    dataclasses.replace(
      step, params=jax.tree.map(lambda leaf: placed[id(leaf)], step.params)
    )
    for step in steps
  ]


def _run(program, common, *arrays):
  with jax.transfer_guard('allow'):  # pieces come and go on purpose
    return [np.asarray(found) for found in program(common, list(arrays))]


def _mixing_matrix(sums, temperature, projection) -> np.ndarray:
  """Makes attention and projection one matrix, (C, C) float32.

  `sums` are `ops.windows.attention_sums` of the whole image.
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
