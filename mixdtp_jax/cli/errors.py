"""Which errors a user can cause, and what to print for them."""

import pathlib
import traceback

from mixdtp_jax.runtime.console import pip_install

_FOLDER = str(pathlib.Path(__file__).parents[1])
# The extra of this package that brings a package in; of skimage, two do.
_EXTRAS = dict.fromkeys(
  ('array_record', 'clu', 'jinja2', 'matplotlib', 'skimage', 'tensorboard',
   'tensorflow', 'tensorflow_datasets'), 'train'
) | {
  'av': 'video', 'libtpu': 'plan', 'onnx': 'export', 'torch': 'torch'
}  # fmt: skip


def explain(error: BaseException, command: str) -> str | None:
  """Returns one line for an error that a user can cause, None for others.

  These are errors of files and of memory, and what this package refuses with
  an error of its own. An error that a library raises is unexpected.
  """
  if isinstance(error, ModuleNotFoundError) and error.name:
    name = error.name.partition('.')[0]
    clips = (command, name) == ('derain', 'skimage')
    if extra := 'video' if clips else _EXTRAS.get(name):
      return f'{name} is not installed: {pip_install(extra)}'
    return None if name == 'mixdtp_jax' else _line(error)
  if 'RESOURCE_EXHAUSTED' in str(error):
    return (
      'the device has too little memory. Take a smaller batch, larger '
      'accumulate_steps, or model.remat = blocks; mixdtp plan says what '
      f'training needs. {_line(error)[:300]}'
    )
  if isinstance(error, MemoryError):
    return _line(error) or 'there is too little memory'
  if isinstance(error, OSError) and error.strerror and error.filename:
    return f'{error.filename}: {error.strerror}'
  if isinstance(error, OSError | ImportError):
    return _line(error)
  expected = ValueError | RuntimeError | ArithmeticError
  return (
    _line(error) if isinstance(error, expected) and _is_own(error) else None
  )


def _line(error: BaseException) -> str:
  return ' '.join(line.strip() for line in str(error).splitlines())


def _is_own(error: BaseException) -> bool:
  """Whether it, or its cause, comes from a raise statement of this package."""
  frames = traceback.extract_tb(error.__traceback__)
  if (
    frames
    and frames[-1].filename.startswith(_FOLDER)
    and (frames[-1].line or '').startswith('raise ')
  ):
    return True
  return error.__cause__ is not None and _is_own(error.__cause__)
