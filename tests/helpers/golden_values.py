"""The reference files in tests/golden: made by the original in float64.

The weights that they were made with are a formula of the parameter's name.
"""

import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / 'golden'
SHAPES = json.loads((FOLDER / 'state_dict_shapes.json').read_text())


def uniform(name: str, shape) -> np.ndarray:
  """Numbers in [-1, 1) that the name decides, float64."""
  generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
  return generator.random(shape) * 2 - 1


def weight(name: str, shape) -> np.ndarray:
  """The value of the parameter of this PyTorch name and shape, float64."""
  u = uniform(name, shape)
  if name.endswith('temperature'):
    return 1 + 0.5 * u
  if '.norm' in name and name.endswith('weight'):
    return 1 + 0.1 * u
  if name.endswith('bias'):
    return 0.1 * u
  return u * np.sqrt(3 / np.prod(shape[1:]))


def state_dict(dtype=np.float32) -> dict[str, np.ndarray]:
  """All 550 parameters."""
  return {n: weight(n, shape).astype(dtype) for n, shape in SHAPES.items()}


def load(name: str) -> dict[str, np.ndarray]:
  """The arrays of tests/golden/`name`.npz."""
  with np.load(FOLDER / f'{name}.npz') as file:
    return dict(file)
