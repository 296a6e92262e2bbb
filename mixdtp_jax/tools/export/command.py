"""Exports weights as a model that runs without this package."""

import json
import os
import pathlib
import shutil
import zipfile

import jax
import jax.numpy as jnp
from jax import export as jax_export

from mixdtp_jax import __version__
from mixdtp_jax.models.config import (
  EXECUTION,
  AnyConfig,
  RestormerConfig,
  as_mapping,
  make_model_config,
)
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.ops import choice
from mixdtp_jax.runtime.files import local_path, replacing
from mixdtp_jax.weights import shipped
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.safetensors_file import read_notes

# Neither protobuf nor flatbuffers, which hold these files, go beyond 2 GiB.
_MOST_BYTES = 2**31 - 2**26
_PROTOCOL = (
  'Input and output are float32 RGB images in [0, 1], {layout}, of any size. '
  'The values are those of an sRGB picture: 8 bits divided by 255, and back by '
  'rounding. Sides are reflected at the bottom and right up to multiples of 8 '
  'where the network needs it, and cropped again; the result is clamped to '
  '[0, 1].'
)
PLATFORMS = ('cpu', 'cuda', 'tpu')  # of StableHLO programs

# Of ONNX Runtime Web: its module, and the program that this loads.
_RUNTIME = (
  'ort.wasm.min.mjs',
  'ort-wasm-simd-threaded.mjs',
  'ort-wasm-simd-threaded.wasm',
)
_PAGE = pathlib.Path(__file__).with_name('page')
_SHARED = pathlib.Path(__file__).parents[1] / 'serve' / 'page'
# Bytes; a tab holds 4 GiB, but some are the page's, and free ones in pieces.
_MEMORY = 3 * 2**30
# Bytes for each pixel and channel of the finest level, and of the refinement:
# ONNX Runtime took up to 1,630 with 16 channels and 2,500 with 32, on a CPU.
_UNET, _RECURRENT = 100, 75


def export(
  weights: str | os.PathLike,
  format: str,
  output: str | os.PathLike | None = None,
  *,
  steps: int | None = None,
  runtime: str | os.PathLike | None = None,
) -> str:
  """Writes a network and its weights, whole or not at all.

  Args:
    weights, steps: see `load_weights`.
    format: onnx or stablehlo, one file each, or web, a folder.
    output: must not exist; None for the name of the weights with the format as
      ending, in the current folder.
    runtime: folder with ONNX Runtime Web, for the format web alone.

  Returns:
    One line that says what was written.

  Raises:
    FileExistsError: the output exists.
    FileNotFoundError, ImportError, ValueError: see `load_weights`; or ONNX is
      not installed, the network has more than 2 GB of parameters, or `runtime`
      or the ending of `output` does not fit the format.
  """
  found = shipped.locate(weights)
  path = pathlib.Path(local_path(output or '') or f'{found.stem}.{format}')
  runtime = pathlib.Path(runtime) if runtime else None
  _check(path, format, runtime)
  cfg, params = load_weights(weights, steps=steps)
  fields = as_mapping(cfg).items()  # without what only training uses
  cfg = make_model_config({k: v for k, v in fields if k not in EXECUTION})
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  if size > _MOST_BYTES:
    raise ValueError(
      f'{weights}: {size / 1e9:.1f} GB of parameters; a file of this format '
      'holds 2 GB'
    )
  metadata = _metadata(found, cfg, format)
  with replacing(path) as temporary:
    target = pathlib.Path(temporary)
    if runtime:
      _write_page(target, cfg, metadata, runtime)
      _write_onnx(target / 'network.onnx', cfg, params, metadata)
    elif format == 'onnx':
      _write_onnx(target, cfg, params, metadata)
    else:
      _write_stablehlo(target, cfg, params, metadata)
    size = sum(file.stat().st_size for file in [target, *target.glob('*')])
  return f'{weights} -> {path}: {cfg.name}, {size / 1e6:.1f} MB'


def _metadata(weights, cfg, format) -> dict[str, str]:
  last = format == 'stablehlo'
  layout = f'(batch, {"height, width, 3" if last else "3, height, width"})'
  metadata = {
    'mixdtp_jax': __version__,
    'model': json.dumps(as_mapping(cfg)),
    'protocol': _PROTOCOL.format(layout=layout),
    'licence': 'not recorded',
  }
  return metadata | read_notes(weights)


def _check(path, format, runtime):
  """Refuses what cannot work before the weights are read."""
  if os.path.lexists(path):
    raise FileExistsError(f'{path} exists already: choose another output')
  if path.suffix in {'.onnx', '.stablehlo', '.web'} - {f'.{format}'}:
    raise ValueError(
      f'{path}: the name ends with {path.suffix}, but --format is {format}: '
      'change either'
    )
  if (format == 'web') != bool(runtime):
    raise ValueError(
      'the format web, and no other, needs --runtime DIR, a folder with ONNX '
      'Runtime Web'
    )
  for name in _RUNTIME if runtime else ():
    if not (runtime / name).is_file():
      raise FileNotFoundError(
        f'--runtime {runtime}: there is no {name}. npm install onnxruntime-web '
        'puts it into node_modules/onnxruntime-web/dist'
      )
  if format != 'stablehlo':
    import onnx  # noqa: F401


def stablehlo_program(cfg: AnyConfig, params: dict) -> bytes:
  """Makes a program for PLATFORMS that `jax.export.deserialize` reads.

  It maps float32 images (batch, height, width, 3) in [0, 1] to the same.
  Parameters, padding, clamping and cropping are inside.
  """
  network = final_image(cfg)

  def restore(rainy):
    _, height, width, _ = rainy.shape
    x = rainy
    for axis in (1, 2) if cfg.multiple > 1 else ():
      x = jnp.take(x, _mirrored(rainy.shape[axis], cfg.multiple), axis)
    x = jnp.clip(network(params, x), 0, 1)
    return x[:, :height, :width]

  shape = jax_export.symbolic_shape('batch, height, width, 3')
  images = jax.ShapeDtypeStruct(shape, jnp.float32)
  with choice.kernels('xla'):
    exported = jax_export.export(jax.jit(restore), platforms=PLATFORMS)(images)
  return bytes(exported.serialize())


def _mirrored(size, multiple: int) -> jax.Array:
  """Returns the pixels of an axis, reflected at its end up to a multiple."""
  period = jnp.maximum(2 * size - 2, 1)  # a single pixel is repeated
  place = jnp.arange(-(-size // multiple) * multiple) % period
  return jnp.minimum(place, period - place)


def _write_onnx(path, cfg, params, metadata):
  from mixdtp_jax.tools.export.onnx_writer import onnx_model

  path.write_bytes(onnx_model(cfg, params, metadata).SerializeToString())


def _write_stablehlo(path, cfg, params, metadata):
  path.write_bytes(stablehlo_program(cfg, params))
  # JAX reads the program from the start of the file, and zipfile reads an
  # archive from its end.
  with zipfile.ZipFile(path, 'a') as archive:
    archive.writestr('metadata.json', json.dumps(metadata, indent=2))


def _write_page(folder, cfg, metadata, runtime):
  """Makes a folder for a browser with all but the network."""
  folder.mkdir()
  channels = getattr(cfg, 'width', 0)
  if isinstance(cfg, RestormerConfig):  # its finest level has twice as many
    channels *= 2
  recurrent = getattr(cfg, 'recurrent_width', 0)
  settings = {
    'name': cfg.name,
    'licence': metadata['licence'],
    # For more, a browser's memory does not suffice.
    'most_pixels': _MEMORY // max(_UNET * channels, _RECURRENT * recurrent),
  }
  (folder / 'settings.json').write_text(json.dumps(settings))
  files = [runtime / name for name in _RUNTIME]
  files += [_SHARED / n for n in ('page.css', 'common.js', 'icon.svg')]
  files += _PAGE.iterdir()
  for file in files:
    shutil.copyfile(file, folder / file.name)
