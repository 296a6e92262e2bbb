"""Compares exported models with the network: agreement, size and time.

  python examples/measure_exports.py --weights general
  python examples/measure_exports.py --config restormer_rain100l

exports the network as ONNX and as StableHLO, restores drawn images of six
sizes with both, and compares with PyTorch in float64. With --config the weights
are drawn. Then it restores one image of --side pixels with each, in turns. It
prints lines of JSON. It needs `pip install -e '.[export,torch]'`.
"""

import argparse
import json
import pathlib
import tempfile
import time

import jax
import numpy as np
import onnxruntime
from jax import export as jax_export

from mixdtp_jax.models.factory import (
  abstract_params,
  final_image,
)
from mixdtp_jax.recipe.config_file import load_recipe
from mixdtp_jax.restoration import whole_image
from mixdtp_jax.tools.export.command import export
from mixdtp_jax.torch_reference.inference import load_network, make_restore
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.safetensors_file import write_safetensors

SIZES = (
  (1, 64, 48),
  (2, 32, 40),
  (1, 13, 21),
  (1, 5, 9),
  (2, 17, 1),
  (1, 3, 2),
)


def draw(cfg, temperature=1):
  """Returns weights under which every part of a network matters."""
  random = np.random.default_rng(0)

  def leaf(path, abstract):
    values = random.uniform(-1, 1, abstract.shape)
    name = jax.tree_util.keystr(path)
    if 'kernel' in name:
      values *= np.prod(abstract.shape[-4:-1]) ** -0.5
    else:
      values = 0.3 * values + ('scale' in name)
      values += temperature * ('temperature' in name)
    return values.astype(np.float32)

  return jax.tree_util.tree_map_with_path(leaf, abstract_params(cfg))


def onnx_restore(path):
  """Returns a function of images (B, H, W, 3) that runs an ONNX model."""
  session = onnxruntime.InferenceSession(path)

  def restore(rainy):
    (restored,) = session.run(None, {'rainy': rainy.transpose(0, 3, 1, 2)})
    return restored.transpose(0, 2, 3, 1)

  return restore


def stablehlo_restore(path):
  """Returns a function of images (B, H, W, 3) that runs a program."""
  program = jax_export.deserialize(bytearray(path.read_bytes()))
  return jax.jit(program.call)


def seconds(restore, rainy):
  """Returns the seconds of one call by the clock, and of all cores."""
  start = time.perf_counter(), time.process_time()
  np.asarray(restore(rainy))
  return time.perf_counter() - start[0], time.process_time() - start[1]


def main():
  """Reads the options, and prints a line for each format, then the times."""
  parser = argparse.ArgumentParser(description=__doc__)
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument('--weights')
  source.add_argument('--config')
  parser.add_argument('--side', type=int, default=128)
  parser.add_argument('--repeats', type=int, default=7)
  options = parser.parse_args()
  if options.weights:
    cfg, params = load_weights(options.weights)
  else:
    cfg = load_recipe(options.config).model
    params = draw(cfg)
  multiple = cfg.multiple
  exact = make_restore(load_network(cfg, params).double(), multiple=multiple)
  random = np.random.default_rng(1)
  images = [random.random((*size, 3), np.float32) for size in SIZES]
  expected = [exact(rainy.astype(np.float64)) for rainy in images]
  restores = {
    'jax': whole_image.make_restore(final_image(cfg), params, multiple=multiple)
  }
  with tempfile.TemporaryDirectory() as folder:
    weights = pathlib.Path(folder, 'weights.safetensors')
    write_safetensors(weights, cfg, params)
    for name, load in ('onnx', onnx_restore), ('stablehlo', stablehlo_restore):
      path = weights.with_suffix(f'.{name}')
      export(weights, name, path)
      restores[name] = restore = load(path)
      worst = [
        float(np.abs(restore(rainy) - other).max())
        for rainy, other in zip(images, expected, strict=True)
      ]
      size = path.stat().st_size
      row = {'format': name, 'bytes': size, 'differences': worst}
      print(json.dumps(row), flush=True)
  rainy = random.random((1, options.side, options.side, 3), np.float32)
  times = {name: [] for name in restores}
  for _ in range(options.repeats + 1):
    for name, restore in restores.items():
      times[name].append(seconds(restore, rainy))
  for name, runs in times.items():
    clock, cores = np.median(runs[1:], axis=0)  # the first run compiles
    row = {'runs': name, 'seconds': clock, 'seconds of all cores': cores}
    print(json.dumps(row), flush=True)


if __name__ == '__main__':
  main()
