"""Restores whole images exactly, of any size, piece by piece."""

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mixdtp_jax.models.config import AnyConfig
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.restoration import pieces, schedule, whole_image
from mixdtp_jax.restoration.maps import Map
from mixdtp_jax.restoration.programs import Programs


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
    """Compiles nothing yet.

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
    self._multiple = make_network(cfg).multiple
    self._steps = schedule.schedule(cfg)
    self._cfg = cfg
    self._programs = Programs(devices or jax.local_devices())
    self._params = params
    self._weights = {}
    self._lock = threading.Lock()
    self._ready = {}

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
    maps = {schedule.RAINY: Map(padded)}
    sums = None
    for number, step in enumerate(self._steps):
      sums = self._take(step, maps, size, sums)
      for spec in step.frees:
        if spec in maps:
          maps.pop(spec).close()
      progress((number + 1) / len(self._steps))
    final = maps[schedule.FINAL].array[:height, :width]
    return np.clip(final, 0, 1)

  def _take(self, step, maps, size, sums):
    """Takes a step; returns the sums that it made, if any."""
    grid = self._grid(step, size)
    sources = [
      pieces.Windows(maps[spec], grid, halo) for spec, halo in step.sources
    ]
    if step.target is not None and step.target not in maps:
      shape = *(n >> step.target.level for n in size), step.target.channels
      maps[step.target] = Map(np.empty(shape, step.target.dtype))
    common = [self._placed(step.params)]
    if sums is not None:
      common.append(sums)
    run = self._run(step, common, sources)
    found = pieces.sweep(run, sources, grid, self._programs.mesh.size)
    if step.target is None:
      return self._mixed(step, found)
    target = pieces.Target(maps[step.target], grid)
    for row, column, result in found:
      target.put(row, column, result)
    return None

  def _grid(self, step, size):
    return pieces.Grid(tuple(n >> step.level for n in size), self.core(step))

  def core(self, step):
    return (64, 64)

  def _placed(self, params):
    everywhere = NamedSharding(self._programs.mesh, PartitionSpec())

    def placed(weight):
      if weight not in self._weights:
        values = weight.of(self._params)
        self._weights[weight] = jax.device_put(values, everywhere)
      return self._weights[weight]

    return jax.tree.map(placed, params)

  def _run(self, step, common, sources):
    shapes = [jax.ShapeDtypeStruct((self._programs.mesh.size, 4), np.int32)]
    shapes += [
      jax.ShapeDtypeStruct((self._programs.mesh.size, *s.shape), s.dtype)
      for s in sources
    ]
    key = (
      step.function,
      step.static,
      tuple(str(s) for s in shapes),
      str(jax.tree.map(lambda a: a.shape, common)),
    )
    if key not in self._ready:
      self._ready[key] = self._programs.get(
        step.function, dict(step.static), common, shapes
      )
    program = self._ready[key]
    return lambda *pieces: program(common, list(pieces))

  def _mixed(self, step, found):
    total = None
    for *_, parts in found:
      parts = [np.asarray(part, np.float64) for part in parts]
      total = parts if total is None else [t + p for t, p in zip(total, parts)]
    temperature, projection = (w.of(self._params) for w in step.mixing)
    return mixing_matrix(*total, temperature, projection)


def mixing_matrix(
  gram: np.ndarray,
  squares_q: np.ndarray,
  squares_k: np.ndarray,
  temperature: np.ndarray,
  projection: np.ndarray,
) -> np.ndarray:
  """Makes attention and projection one matrix, as `ChannelAttention` does.

  Args:
    gram: (C, C), products of the channels of q and k, summed over the image.
    squares_q: (C,), of q.
    squares_k: (C,), of k.
    temperature: (heads,).
    projection: (C, C).

  Returns:
    (C, C) float32.
  """
  heads = len(temperature)
  channels = len(gram) // heads
  blocks = gram.reshape(heads, channels, heads, channels)
  similarity = blocks[np.arange(heads), :, np.arange(heads)]
  for squares, shape in ((squares_q, (-1, 1)), (squares_k, (1, -1))):
    norm = np.sqrt(np.maximum(squares, 1e-24))
    similarity = similarity / norm.reshape(heads, *shape)
  similarity *= temperature[:, None, None].astype(np.float64)
  attention = np.exp(similarity - similarity.max(-1, keepdims=True))
  attention /= attention.sum(-1, keepdims=True)
  projected = attention.swapaxes(1, 2) @ projection.reshape(heads, channels, -1)
  return projected.reshape(len(gram), -1).astype(np.float32)
