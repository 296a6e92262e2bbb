"""Atomic writing: files that are complete or absent."""

import contextlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any


def dump_json(content: Mapping[str, Any], path: str | os.PathLike) -> None:
  """Writes an object as JSON.

  JSON has no infinity and no NaN: they become the strings 'inf', '-inf' and
  'nan', which Python's float() reads back.
  """
  with replacing(path) as temporary, open(temporary, 'w') as file:
    json.dump(_json_safe(content), file, indent=2, allow_nan=False)
    file.write('\n')


def _json_safe(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {str(key): _json_safe(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_json_safe(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
  """Yields a temporary name to write, which then replaces `path`.

  After an error, `path` is unchanged and the temporary file is gone.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # In a folder of our own, the new file gets the usual permissions.
  with tempfile.TemporaryDirectory(
    dir=path.parent, prefix='.writing-'
  ) as folder:
    temporary = os.path.join(folder, path.name)
    yield temporary
    os.replace(temporary, path)
