"""Compiled functions of phases.py, kept in the user's cache folder."""

import collections
import hashlib
import os
import pathlib
import pickle
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import serialize_executable
from jax.sharding import AxisType, Mesh, PartitionSpec

from mixdtp_jax.ops import choice
from mixdtp_jax.ops.cpu import build
from mixdtp_jax.runtime.files import replacing

_COMPILERS = 4  # threads

# Of all programs together, in bytes; the least recently used go first.
LIMIT = 256 * 2**20

_HIT = '/jax/compilation_cache/cache_hits'
_hits = collections.Counter()
jax.monitoring.register_event_listener(
  lambda event, **_: _hits.update([event] if event == _HIT else [])
)

_DIGEST = hashlib.sha256().digest_size

Program = Callable[..., Any]
Request = tuple[Callable, tuple[tuple[str, Any], ...], Any, Any]


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
    self._environment = _environment(self.mesh)
    self._loaded = {}
    self.compiled = 0  # programs that were not on disk

  def get(self, wanted: Sequence[Request]) -> list[Program]:
    """Returns programs, each compiled now or before.

    Args:
      wanted: for each a function of phases.py, its keyword arguments, what is
        alike for all pieces (its parameters first), and bounds (N, 4) and
        windows (N, h, w, C) of the N devices' pieces. Shapes and dtypes of
        these arguments count, not their values.
    """
    names = [self._name(*request) for request in wanted]
    different = dict(zip(names, wanted, strict=True))
    with futures.ThreadPoolExecutor(_COMPILERS) as compilers:
      list(compilers.map(self._prepare, different, different.values()))
    return [self._loaded[name] for name in names]

  def has(self, request: Request) -> bool:
    """Returns whether `get` need not compile this one."""
    name = self._name(*request)
    if name in self._loaded:
      return True
    return self._folder is not None and (self._folder / name).exists()

  def _prepare(self, name, request) -> None:
    if name in self._loaded:
      return
    program = self._load(name)
    if program is None:
      hits = _hits.total()
      program = self._compile(*request)
      # What JAX's own cache gave lacks parts, of which XLA does not tell.
      if _hits.total() == hits:
        self._write(name, serialize_executable.serialize(program))
    self._loaded[name] = program

  def _compile(self, function, static, common, pieces) -> Program:
    def one_piece(common, pieces):
      (params, *others), (bounds, *windows) = common, pieces
      found = function(params, bounds[0], *others, *windows, **dict(static))
      return found if isinstance(found, tuple) else (found,)

    shared = jax.shard_map(
      one_piece,
      mesh=self.mesh,
      in_specs=(PartitionSpec(), PartitionSpec('piece')),
      out_specs=PartitionSpec('piece'),
      check_vma=False,
    )
    self.compiled += 1
    return jax.jit(shared).lower(common, pieces).compile()

  def _name(self, function, static, common, pieces) -> str:
    leaves, tree = jax.tree.flatten((common, pieces))
    text = [
      self._environment,
      function.__name__,
      repr(static),
      repr([(leaf.shape, str(leaf.dtype)) for leaf in leaves]),
      str(tree),
    ]
    return hashlib.sha256('\0'.join(text).encode()).hexdigest()[:32]

  def _load(self, name) -> Program | None:
    """Reads a program; None if it is not there, or not whole."""
    if self._folder is None:
      return None
    path = self._folder / name
    try:
      whole = path.read_bytes()
      os.utime(path)  # it was used now
    except OSError:
      return None
    digest, content = whole[:_DIGEST], whole[_DIGEST:]
    if digest != hashlib.sha256(content).digest():
      return None
    try:
      return serialize_executable.deserialize_and_load(
        *pickle.loads(content),
        backend=self.mesh.devices[0].client,
        execution_devices=list(self.mesh.devices),
      )
    except RuntimeError as error:  # of XLA; it can be compiled again
      logging.info('%s cannot be loaded: %s', path, error)
      return None

  def _write(self, name, parts) -> None:
    if self._folder is None:
      return
    content = pickle.dumps(parts)
    try:
      with replacing(self._folder / name) as temporary:
        digest = hashlib.sha256(content).digest()
        pathlib.Path(temporary).write_bytes(digest + content)
      _remove_oldest(self._folder, self._limit)
    except OSError as error:
      logging.warning('Compiled programs are not kept: %s', error)
      self._folder = None


def _user_folder() -> pathlib.Path | None:
  try:
    return build.cache_folder() / 'programs'
  except RuntimeError:  # there is no home folder
    return None


def _remove_oldest(folder: pathlib.Path, limit: int) -> None:
  files = [(path.stat(), path) for path in folder.iterdir() if path.is_file()]
  size = sum(stat.st_size for stat, _ in files)
  for stat, path in sorted(files, key=lambda f: f[0].st_mtime):
    if size <= limit:
      return
    path.unlink(missing_ok=True)
    size -= stat.st_size


def _environment(mesh: Mesh) -> str:
  """Returns all that compiled code depends on but the function."""
  package = pathlib.Path(__file__).parents[1]
  sources = [
    *(package / 'ops').rglob('*.py'),
    *(package / 'ops').rglob('*.cc'),
    *(package / 'models').glob('*.py'),
    *(package / 'restoration' / name for name in ('phases.py', 'programs.py')),
  ]
  client = mesh.devices[0].client
  text = '\0'.join(
    [
      *(path.read_text() for path in sorted(sources)),
      jax.__version__,
      jax.lib.__version__,
      client.platform_version,
      str(mesh.devices),
      mesh.devices[0].device_kind,
      build.processor(),
      os.environ.get('XLA_FLAGS', ''),
      str(choice.usable(np.float32)),
      str(jax.config.jax_enable_x64),
      str(jax.config.jax_default_matmul_precision),
      str(jax.config.read('jax_disable_most_optimizations')),
    ]
  )
  return hashlib.sha256(text.encode()).hexdigest()
