"""Compiled functions of phases.py, kept in the user's cache folder."""

import functools
import hashlib
import os
import pathlib
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import serialize_executable
from jax.sharding import AxisType, Mesh, PartitionSpec

from mixdtp_jax.ops import choice
from mixdtp_jax.ops.cpu import build
from mixdtp_jax.runtime.files import replacing

# Of all programs together, in bytes; the least recently used go first.
LIMIT = 256 * 2**20

Program = Callable[..., Any]


class Programs:
  """Programs for some devices, each compiled once and then found on disk.

  A program takes what is alike for all pieces, and then arrays of as many
  pieces as there are devices, stacked along their first axis.
  """

  def __init__(
    self,
    devices: Sequence[jax.Device],
    folder: pathlib.Path | None = None,
    limit: int = LIMIT,
  ):
    """Compiles nothing yet.

    Args:
      devices: of one kind; each computes one of the pieces.
      folder: where programs are kept; None for that of the user's cache.
      limit: bytes that the folder may hold.
    """
    self.mesh = Mesh(np.array(devices), 'piece', axis_types=(AxisType.Auto,))
    self._limit, self._folder = limit, folder or _user_folder()
    self.compiled = 0  # programs that were not on disk

  def get(
    self, function: Callable, static: dict[str, Any], common: Any, pieces: Any
  ) -> Program:
    """Returns the program of a function.

    Args:
      function: of phases.py: (params, bounds, *common, *windows).
      static: its keyword arguments.
      common: params, and other arguments that are alike for all pieces.
      pieces: bounds (4,) and windows (1, h, w, C) of one piece.
    """
    common, pieces = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (common, pieces)
    )
    path = self._path(function, static, (common, pieces))
    parts = _read(path)
    if parts is not None:
      return serialize_executable.deserialize_and_load(
        *parts,
        backend=self.mesh.devices[0].client,
        execution_devices=list(self.mesh.devices),
      )
    program = self._compile(function, static, common, pieces)
    self.compiled += 1
    self._write(path, serialize_executable.serialize(program))
    return program

  def _compile(self, function, static, common, pieces) -> Program:
    def one_piece(common, pieces):
      (params, *others), (bounds, *windows) = common, pieces
      return function(params, bounds[0], *others, *windows, **static)

    shared = jax.shard_map(
      one_piece,
      mesh=self.mesh,
      in_specs=(PartitionSpec(), PartitionSpec('piece')),
      out_specs=PartitionSpec('piece'),
      check_vma=False,
    )
    return jax.jit(shared).lower(common, pieces).compile()

  def _path(self, function, static, arguments) -> pathlib.Path | None:
    if self._folder is None:
      return None
    leaves, tree = jax.tree.flatten(arguments)
    text = [
      _environment(self.mesh.devices[0].device_kind),
      str(self.mesh.devices),
      function.__name__,
      repr(sorted(static.items())),
      repr([(leaf.shape, str(leaf.dtype)) for leaf in leaves]),
      str(tree),
    ]
    name = hashlib.sha256('\0'.join(text).encode()).hexdigest()[:32]
    return self._folder / name

  def _write(self, path, parts) -> None:
    if path is None:
      return
    try:
      content = pickle.dumps(parts)
      with replacing(path) as temporary:
        pathlib.Path(temporary).write_bytes(_digest(content) + content)
      _remove_oldest(self._folder, self._limit)
    except OSError as error:
      logging.warning('Compiled programs are not kept: %s', error)
      self._folder = None


def _user_folder() -> pathlib.Path | None:
  try:
    return build.cache_folder() / 'programs'
  except RuntimeError:  # there is no home folder
    return None


def _digest(content: bytes) -> bytes:
  return hashlib.sha256(content).digest()


def _read(path: pathlib.Path | None) -> tuple | None:
  """Returns what `_write` wrote there; None where it is not, or not whole."""
  try:
    whole = path.read_bytes() if path else b''
    digest, content = whole[:32], whole[32:]
    if not content or digest != _digest(content):
      return None
    os.utime(path)  # it was used now
  except OSError:
    return None
  return pickle.loads(content)


def _remove_oldest(folder: pathlib.Path, limit: int) -> None:
  files = [(path.stat(), path) for path in folder.iterdir() if path.is_file()]
  size = sum(stat.st_size for stat, _ in files)
  for stat, path in sorted(files, key=lambda f: f[0].st_mtime):
    if size <= limit:
      return
    path.unlink(missing_ok=True)
    size -= stat.st_size


@functools.cache
def _environment(device_kind: str) -> str:
  """Returns all that compiled code depends on but the function."""
  package = pathlib.Path(__file__).parents[1]
  sources = [
    *(package / 'ops').rglob('*.py'),
    *(package / 'ops').rglob('*.cc'),
    *(package / 'models').glob('*.py'),
    *(package / 'restoration' / name for name in ('phases.py', 'programs.py')),
  ]
  backend = jax.extend.backend.get_backend()
  return '\0'.join(
    [
      *(path.read_text() for path in sorted(sources)),
      jax.__version__,
      jax.lib.__version__,
      backend.platform,
      backend.platform_version,
      device_kind,
      build.processor(),
      os.environ.get('XLA_FLAGS', ''),
      str(choice.usable(np.float32)),
      str(jax.config.jax_enable_x64),
      str(jax.config.jax_default_matmul_precision),
      str(jax.config.read('jax_disable_most_optimizations')),
    ]
  )
