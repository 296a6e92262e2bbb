"""The compilation of the .cc files into a library in the user's cache."""

import hashlib
import os
import pathlib
import platform
import shlex
import subprocess
import tempfile
from concurrent import futures

import jax
import jaxlib
from absl import logging

_FOLDER = pathlib.Path(__file__).parent
_SOURCES = [_FOLDER / f'{name}_kernels.cc' for name in ('cpu', 'window')]
_SHARED = _FOLDER / 'kernels.h'
_FLAGS = (
  '-std=c++17', '-O3', '-march=native', '-fno-math-errno',
  '-fno-trapping-math', '-Wno-psabi', '-fPIC',
  # By default, compilers use half vectors, for the sake of older processors.
  *(['-mprefer-vector-width=512'] if platform.machine() == 'x86_64' else []),
)  # fmt: skip


def cache_folder() -> pathlib.Path:
  """Returns the user's cache folder of this project.

  Raises:
    RuntimeError: there is no home folder.
  """
  usual = pathlib.Path.home() / '.cache'
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or usual, 'mixdtp_jax')


def compiled_library(folder: pathlib.Path) -> pathlib.Path:
  """Returns the library in `folder`; compiles it if it is missing.

  Raises:
    OSError: there is no compiler, or the folder cannot be written.
    subprocess.CalledProcessError: the compiler failed; stderr says why.
  """
  compiler = shlex.split(os.environ.get('CXX') or 'c++')
  command = [*compiler, *_FLAGS, '-isystem', jax.ffi.include_dir(), '-c']
  path = folder / f'cpu_kernels-{_identity(command)}.so'
  if path.exists():
    return path
  logging.info('Compiling native code')
  folder.mkdir(parents=True, exist_ok=True)
  # Another process may be doing the same: only whole files appear here.
  with tempfile.TemporaryDirectory(dir=folder) as scratch:
    made = pathlib.Path(scratch, 'made.so')
    objects = [str(made.with_name(f'{path.stem}.o')) for path in _SOURCES]
    jobs = [
      [*command, str(source), '-o', target]
      for source, target in zip(_SOURCES, objects, strict=True)
    ]
    with futures.ThreadPoolExecutor() as threads:
      list(threads.map(_run, jobs))
    _run([*compiler, '-shared', *objects, '-o', str(made)])
    os.replace(made, path)
  return path


def _run(command: list[str]) -> None:
  subprocess.run(command, check=True, capture_output=True, text=True)


def _identity(command) -> str:
  """Returns a digest of all that a library depends on.

  That includes the processor: different machines may share a home folder.
  """
  sources = [path.read_text() for path in (*_SOURCES, _SHARED)]
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
