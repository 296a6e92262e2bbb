"""Compiled functions of phases.py, kept in the user's cache folder.

A kept program is machine code, and JAX reads it with pickle: whoever can write
the folder can run code here. So the folder belongs to the user alone.
"""

import collections
import contextlib
import hashlib
import os
import pathlib
import pickle
import re
from collections.abc import Sequence, Set
from concurrent import futures
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import serialize_executable
from jax.sharding import AxisType, Mesh, PartitionSpec

from mixdtp_jax.ops import choice
from mixdtp_jax.ops.cpu import build
from mixdtp_jax.restoration.steps import Step
from mixdtp_jax.runtime.files import own_folder, replacing

_COMPILERS = 4  # threads
_SETTINGS = ('jax_enable_x64', 'jax_default_matmul_precision')

# Of all programs together, in bytes; the least recently used go first.
LIMIT = 256 * 2**20

_HIT = '/jax/compilation_cache/cache_hits'
_hits: collections.Counter[str] = collections.Counter()
jax.monitoring.register_event_listener(
  lambda event, **_: _hits.update([event] if event == _HIT else [])
)

_DIGEST = hashlib.sha256().digest_size

Program = jax.stages.Compiled
Core = tuple[int, int]  # rows and columns of a piece without its halo


class Programs:
  """Programs for some devices, each compiled once and then found on disk.

  A program takes the arrays that all pieces share, then those of one piece for
  each device, stacked along their first axis.
  """

  def __init__(self, devices: Sequence[jax.Device], kernels: str = 'auto'):
    """Compiles nothing yet.

    The devices are of one kind; each computes one of the pieces. `kernels` is
    the option of a recipe.
    """
    self._kernels = choice.resolve(kernels, devices)
    self.mesh = Mesh(np.array(devices), 'piece', axis_types=(AxisType.Auto,))
    self._folder = _usable_folder()
    self._environment = f'{self._kernels} {_environment(self.mesh)}'
    self._names: dict[Step, str] = {}
    self._loaded: dict[str, Program] = {}
    self._cores = _cores_on_disk(self._folder)
    self.compiled = 0  # programs that were not on disk

  def name(self, step: Step) -> str:
    """Returns a digest that all programs of a step share."""
    if step not in self._names:
      leaves, tree = jax.tree.flatten(_common(step))
      text = [
        self._environment,
        step.function.__name__,
        repr((step.static, _windows(step, (1, 2)))),
        repr([(leaf.shape, str(leaf.dtype)) for leaf in leaves]),
        str(tree),
      ]
      digest = hashlib.sha256('\0'.join(text).encode()).hexdigest()
      self._names[step] = digest[:32]
    return self._names[step]

  def cores(self, step: Step) -> Set[Core]:
    """Returns the sizes of pieces that a step has programs for."""
    return frozenset(self._cores[self.name(step)])  # others may add to it

  def get(self, wanted: Sequence[tuple[Step, Core]]) -> list[Program]:
    """Returns a program for each step and size of pieces, compiled if new."""
    names = ['{}-{}x{}'.format(self.name(s), *core) for s, core in wanted]
    different = dict(zip(names, wanted, strict=True))
    with futures.ThreadPoolExecutor(_COMPILERS) as compilers:
      list(compilers.map(self._prepare, different, different.values()))
    return [self._loaded[name] for name in names]

  def _prepare(self, name, wanted) -> None:
    if name in self._loaded:
      return
    program = self._load(name)
    if program is None:
      hits = _hits.total()
      program = self._compile(*wanted)
      # What JAX's own cache gave lacks parts, of which XLA does not tell.
      if _hits.total() == hits:
        self._write(name, serialize_executable.serialize(program))
    self._loaded[name] = program
    step, core = wanted
    self._cores[self.name(step)].add(core)

  def _compile(self, step, core) -> Program:
    def one_piece(common, pieces):
      (params, *others), (bounds, *windows) = common, pieces
      found = step.function(
        params, bounds[0], *others, *windows, **dict(step.static)
      )
      return found if isinstance(found, tuple) else (found,)

    shared = jax.shard_map(
      one_piece,
      mesh=self.mesh,
      in_specs=(PartitionSpec(), PartitionSpec('piece')),
      out_specs=PartitionSpec('piece'),
      check_vma=False,
    )
    devices = self.mesh.size
    pieces = [jax.ShapeDtypeStruct((devices, 4), np.int32)]
    for shape, dtype in _windows(step, core):
      pieces.append(jax.ShapeDtypeStruct((devices, *shape), dtype))
    self.compiled += 1
    traced = choice.traced_with(self._kernels, shared)
    return jax.jit(traced).lower(_common(step), pieces).compile()

  def _load(self, name) -> Program | None:
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
    program, arguments, results = pickle.loads(content)
    try:
      return serialize_executable.deserialize_and_load(
        program,
        arguments,
        results,
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
      _remove_oldest(self._folder)
    except FileNotFoundError:
      pass  # another process removed a program meanwhile
    except OSError as error:
      logging.warning('Compiled programs are not kept: %s', error)
      self._folder = None


def _usable_folder() -> pathlib.Path | None:
  """Returns a folder that only this user can write; None if impossible."""
  try:
    folder = build.cache_folder() / 'programs'
    if own_folder(folder):
      return folder
    reason = f'others can write {folder}: remove it, or set XDG_CACHE_HOME'
  except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
    reason = str(error)
  logging.warning('Compiled programs are not kept: %s', reason)
  return None


def _common(step: Step) -> list[Any]:
  """Returns the shapes of the arguments that all pieces share."""
  common = [jax.eval_shape(lambda: step.params)]
  if step.mixes:
    side = step.sources[0][0].channels
    common.append(jax.ShapeDtypeStruct((side, side), np.float32))
  return common


def _windows(step: Step, core: Core) -> list[tuple[tuple[int, ...], str]]:
  """Returns shape and dtype of the window of each map."""
  windows = []
  for spec, halo in step.sources:
    sides = ((side << step.level - spec.level) + 2 * halo for side in core)
    windows.append(((*sides, spec.channels), spec.dtype))
  return windows


def _cores_on_disk(folder: pathlib.Path | None) -> dict[str, set[Core]]:
  found = collections.defaultdict(set)
  with contextlib.suppress(OSError):
    for path in folder.iterdir() if folder else ():
      if match := re.fullmatch(r'(\w+)-(\d+)x(\d+)', path.name):
        found[match[1]].add((int(match[2]), int(match[3])))
  return found


def _remove_oldest(folder: pathlib.Path) -> None:
  files = [(path.stat(), path) for path in folder.iterdir() if path.is_file()]
  size = sum(stat.st_size for stat, _ in files)
  for stat, path in sorted(files, key=lambda f: f[0].st_mtime):
    if size <= LIMIT:
      return
    path.unlink(missing_ok=True)
    size -= stat.st_size


def _environment(mesh: Mesh) -> str:
  """Returns all that compiled code depends on but the function."""
  package = pathlib.Path(__file__).parents[1]
  sources = [
    *(package / 'ops').rglob('*'),
    *(package / 'models').iterdir(),
    *(package / 'restoration' / name for name in ('phases.py', 'programs.py')),
  ]
  code = [p for p in sorted(sources) if p.suffix in ('.py', '.cc', '.h')]
  device = mesh.devices[0]
  text = [
    *(path.read_text() for path in code),
    jax.__version__,
    jax.lib.__version__,
    device.client.platform_version,
    str(mesh.devices),
    device.device_kind,
    build.processor(),
    os.environ.get('XLA_FLAGS', ''),
    *(str(getattr(jax.config, name)) for name in _SETTINGS),
    str(jax.config.read('jax_disable_most_optimizations')),
  ]
  return hashlib.sha256('\0'.join(text).encode()).hexdigest()
