"""The reference files in tests/golden, which the original made in float64.

Its weights were computed from the names of the parameters.
"""

import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / 'golden'
SHAPES = json.loads((FOLDER / 'state_dict_shapes.json').read_text())


def uniform(name: str, shape) -> np.ndarray:
  """Returns numbers in [-1, 1) that depend on the name, float64."""
  generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
  return generator.random(shape) * 2 - 1


def weight(name: str, shape) -> np.ndarray:
  """Returns the parameter of a PyTorch name and shape, float64."""
  u = uniform(name, shape)
  if name.endswith('temperature'):
    return 1 + 0.5 * u
  if '.norm' in name and name.endswith('weight'):
    return 1 + 0.1 * u
  if name.endswith('bias'):
    return 0.1 * u
  return u * np.sqrt(3 / np.prod(shape[1:]))


def state_dict(dtype=np.float32) -> dict[str, np.ndarray]:
  """Returns all 550 parameters."""
  return {n: weight(n, shape).astype(dtype) for n, shape in SHAPES.items()}


def load(name: str) -> dict[str, np.ndarray]:
  """Returns the arrays of tests/golden/`name`.npz."""
  with np.load(FOLDER / f'{name}.npz') as file:
    return dict(file)
