"""Numbers of file formats: a file from a newer version is refused by name."""

from typing import Any


class NewerFormatError(ValueError):
  """A file was written by a newer version of this package."""


def check_format(path: Any, found: Any, newest: int) -> None:
  """Checks the format number of a file.

  Args:
    path: the file, for the message.
    found: the number in the file; 0 if it has none, as the first version
      wrote none.
    newest: the newest number that this version can read.

  Raises:
    NewerFormatError: the number is above `newest`.
    ValueError: it is not a number of a format.
  """
  if type(found) is not int or found < 0:
    raise ValueError(
      f'{path}: format {found!r} is not a format number: the file is damaged'
    )
  if found > newest:
    raise NewerFormatError(
      f'{path}: format {found} was made by a newer version (this one reads up '
      f'to {newest}): update mixdtp_jax'
    )
