"""The best checkpoint of a run: WORKDIR/best.json names it."""

import json
import os
import pathlib
from typing import Any

FILE = 'best.json'


def read_best(workdir: str | os.PathLike) -> dict[str, Any] | None:
  """Reads {'update', 'split', 'images', 'y_psnr'}; None if there is no record.

  Raises:
    ValueError: the file is damaged.
  """
  path = pathlib.Path(workdir, FILE)
  try:
    found = json.loads(path.read_bytes())
    if isinstance(found['update'], int):
      return found | {'y_psnr': float(found['y_psnr'])}
  except FileNotFoundError:
    return None
  except (ValueError, KeyError, TypeError, RecursionError):
    pass
  raise ValueError(
    f'{path} is damaged: delete it, and the run names its best checkpoint again'
  )
