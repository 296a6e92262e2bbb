"""Digests of saved arrays, so that no array is read with other values.

They are made from the arrays in memory, and lie beside the saved ones:

    digests.json   {'arrays': {'params/conv/kernel': SHA-256, ...},
                    'facts': SHA-256 of update and configuration,
                    'digest': SHA-256 of the two entries above}
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from mixdtp_jax.runtime.files import DAMAGED, dump_json, load_json

FILE = 'digests.json'


class DamagedError(ValueError):
  """What was read is not what was saved."""


def on_host(tree: Any) -> Any:
  """Returns an array tree in NumPy; every device must hold all of its values.

  On a CPU the arrays share the memory of `tree`.
  """

  def shard(x):
    # The object that orbax copies, too, so that it is copied once.
    return x.addressable_shards[0].data if isinstance(x, jax.Array) else x

  return jax.device_get(jax.tree.map(shard, tree))


def named(trees: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns the arrays of trees on the host, by names such as 'params/a/b'."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(on_host(dict(trees)))
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def not_finite(trees: Mapping[str, Any]) -> str | None:
  """Returns the name of an array with infinite values or NaN; None without."""
  arrays = named(trees).items()
  return next((n for n, x in arrays if not np.isfinite(x).all()), None)


def write_digests(
  folder: pathlib.Path, trees: Mapping[str, Any], facts: Any
) -> None:
  """Writes the digests of trees of arrays, by name, into their folder.

  `facts` are JSON that was saved with them, and must be read with the same
  values.
  """
  content = {
    'arrays': {name: _of_array(x) for name, x in named(trees).items()},
    'facts': _of_json(facts),
  }
  dump_json(content, folder / FILE, sealed=True)


def read_digests(folder: pathlib.Path, facts: Any) -> dict[str, str] | None:
  """Reads the digests of a folder's arrays, by name; None if it has none.

  DamagedError if the digests are damaged, or if `facts`, which were read from
  the folder, are not what was saved.
  """
  path = folder / FILE
  try:
    content = load_json(path)
    arrays, saved = content['arrays'], content['facts']
  except FileNotFoundError:
    return None
  except DAMAGED:
    raise DamagedError(f'{path} is damaged') from None
  if saved != _of_json(facts):
    raise DamagedError(f'{folder}: its configuration is not what was saved')
  return arrays


def check(
  folder: pathlib.Path,
  digests: Mapping[str, str] | None,
  trees: Mapping[str, Any],
) -> None:
  """Checks the trees of arrays that were read from a folder, by their names.

  With None for the digests, a line says that nothing is checked. DamagedError
  if an array is not what was saved.
  """
  if digests is None:
    logging.info('%s was saved without digests: not verified', folder)
    return
  for name, x in named(trees).items():
    if digests.get(name) != _of_array(x):
      raise DamagedError(f'{folder}: {name} is not what was saved')


def _of_array(x: np.ndarray) -> str:
  digest = hashlib.sha256(f'{x.dtype.str} {x.shape} '.encode())
  digest.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
  return digest.hexdigest()


def _of_json(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
