"""A folder with a page that restores pictures in the browser alone."""

import json
import pathlib
import shutil
from collections.abc import Mapping

from mixdtp_jax.models.config import AnyConfig, RestormerConfig

# Of ONNX Runtime Web: its module, and the program that this loads.
RUNTIME = (
  'ort.wasm.min.mjs',
  'ort-wasm-simd-threaded.mjs',
  'ort-wasm-simd-threaded.wasm',
)
NETWORK = 'network.onnx'  # worker.js loads it
_PAGE = pathlib.Path(__file__).with_name('page')
_SHARED = pathlib.Path(__file__).parents[1] / 'serve' / 'page'
# Bytes; a tab holds 4 GiB, but some are the page's, and free ones in pieces.
_MEMORY = 3 * 2**30
# Bytes for each pixel and channel of the finest level, and of the refinement:
# ONNX Runtime took up to 1,630 with 16 channels and 2,500 with 32, on a CPU.
_UNET, _RECURRENT = 100, 75


def check_runtime(folder: pathlib.Path) -> None:
  """Raises FileNotFoundError unless ONNX Runtime Web lies in the folder."""
  for name in RUNTIME:
    if not (folder / name).is_file():
      raise FileNotFoundError(
        f'--runtime {folder}: there is no {name}. npm install onnxruntime-web '
        'puts it into node_modules/onnxruntime-web/dist'
      )


def write_page(
  folder: pathlib.Path,
  cfg: AnyConfig,
  metadata: Mapping[str, str],
  runtime: pathlib.Path,
) -> None:
  """Makes the folder with all but the network: page and runtime."""
  folder.mkdir()
  settings = {
    'name': cfg.name,
    'licence': metadata['licence'],
    'most_pixels': most_pixels(cfg),
  }
  (folder / 'settings.json').write_text(json.dumps(settings))
  files = [runtime / name for name in RUNTIME]
  files += [_SHARED / n for n in ('page.css', 'common.js', 'icon.svg')]
  files += _PAGE.iterdir()
  for file in files:
    shutil.copyfile(file, folder / file.name)


def most_pixels(cfg: AnyConfig) -> int:
  """Returns the pixels for which a browser's memory suffices."""
  channels = getattr(cfg, 'width', 0)
  if isinstance(cfg, RestormerConfig):  # its finest level has twice as many
    channels *= 2
  recurrent = getattr(cfg, 'recurrent_width', 0)
  return _MEMORY // max(_UNET * channels, _RECURRENT * recurrent)
