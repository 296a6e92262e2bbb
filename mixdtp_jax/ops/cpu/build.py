"""The compilation of the .cc files into a library in the user's cache."""

import contextlib
import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent import futures

import jax
import jaxlib
from absl import logging

from mixdtp_jax.runtime.files import own_folder, working_folder

_FOLDER = pathlib.Path(__file__).parent
_SOURCES = [_FOLDER / f'{name}_kernels.cc' for name in ('cpu', 'window')]
_SHARED = [_FOLDER / f'{name}.h' for name in ('kernels', 'winograd')]
_FLAGS = (
  '-std=c++17', '-O3', '-march=native', '-fno-math-errno',
  '-fno-trapping-math', '-Wno-psabi', '-fPIC',
  # By default, compilers use half vectors, for the sake of older processors.
  *(['-mprefer-vector-width=512'] if platform.machine() == 'x86_64' else []),
)  # fmt: skip


def cache_folder() -> pathlib.Path:
  """Returns the user's cache folder; RuntimeError without a home folder."""
  usual = pathlib.Path.home() / '.cache'
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or usual, 'mixdtp_jax')


class BuildError(RuntimeError):
  """The library cannot be made or loaded; the message says what helps."""


def load_library() -> ctypes.CDLL:
  """Loads the library, which is made if the user's cache has no sound one."""
  with _private_folder() as folder:
    for last in (False, True):
      path = compiled_library(folder)
      try:
        return ctypes.CDLL(str(path))
      except OSError as error:  # made on another system: once more
        path.unlink(missing_ok=True)
        if last:
          raise BuildError(
            f'the library does not load: {error}. Name another C++ compiler '
            'in CXX, or a folder that may hold programs in XDG_CACHE_HOME'
          ) from error
  raise AssertionError


@contextlib.contextmanager
def _private_folder() -> Iterator[pathlib.Path]:
  """Yields the cache if nobody else can write into it, or a temporary folder.

  Whoever can write there could have this process run any code.
  """
  try:
    folder = cache_folder()
    problem = '' if own_folder(folder) else f'others can write into {folder}'
  except (OSError, RuntimeError) as error:
    problem = str(error)
  if not problem:
    yield folder
    return
  logging.warning(
    'Native code is compiled at each start, because it cannot be kept: %s. '
    'Make the folder yours alone (chmod 700), or name another in '
    'XDG_CACHE_HOME.',
    problem,
  )
  with tempfile.TemporaryDirectory(prefix='mixdtp_jax-') as scratch:
    yield pathlib.Path(scratch)


def compiled_library(folder: pathlib.Path) -> pathlib.Path:
  """Returns the library in `folder`; compiles it if it is missing or damaged.

  Its name ends with the digest of its content. BuildError if there is no
  compiler, it failed, or the folder cannot be written.
  """
  name = os.environ.get('CXX') or 'c++'
  try:
    compiler = shlex.split(name)
  except ValueError:  # an open quotation
    compiler = [name]
  if shutil.which(compiler[0]) is None:
    raise BuildError(
      f'there is no C++ compiler {name}. Install one, or name one in CXX'
    )
  command = [*compiler, *_FLAGS, '-isystem', jax.ffi.include_dir(), '-c']
  identity = f'cpu_kernels-{_identity(command)}'
  try:
    for path in folder.glob(f'{identity}-*.so'):
      if path.stem == f'{identity}-{_digest(path)}':
        return path
      logging.warning('%s is damaged: compiling it again', path)
      path.unlink(missing_ok=True)
    logging.info('Compiling native code')
    return _compile(compiler, command, folder, identity)
  except subprocess.CalledProcessError as error:
    said = [f'exit status {error.returncode}', *error.stderr.splitlines()]
    line = next((line for line in said if 'error' in line), said[0])
    raise BuildError(
      f'{name} failed: {line.strip()}. Name another C++ compiler in CXX'
    ) from error
  except OSError as error:
    raise BuildError(
      f'{error}. Name a folder that can be written in XDG_CACHE_HOME'
    ) from error


def _compile(compiler, command, folder, identity) -> pathlib.Path:
  run = functools.partial(
    subprocess.run, check=True, capture_output=True, text=True
  )
  # Another process may be doing the same: only whole files appear here.
  with working_folder(folder) as scratch:
    made = pathlib.Path(scratch, 'made.so')
    objects = [str(made.with_name(f'{path.stem}.o')) for path in _SOURCES]
    jobs = [
      [*command, str(source), '-o', target]
      for source, target in zip(_SOURCES, objects, strict=True)
    ]
    with futures.ThreadPoolExecutor() as threads:
      list(threads.map(run, jobs))
    run([*compiler, '-shared', *objects, '-o', str(made)])
    path = folder / f'{identity}-{_digest(made)}.so'
    os.replace(made, path)
  return path


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _identity(command) -> str:
  """Returns a digest of all that a library depends on.

  That includes the processor: different machines may share a home folder.
  """
  sources = [path.read_text() for path in (*_SOURCES, *_SHARED)]
  parts = [*sources, jaxlib.__version__, *command, processor()]
  return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:16]


def processor() -> str:
  """Returns the processor's name and features, as far as the system says."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.machine() + platform.processor()
  told = ('model name', 'flags', 'Features', 'CPU part')
  return '\n'.join(sorted({line for line in lines if line.startswith(told)}))
