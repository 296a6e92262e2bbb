"""Exported networks: run elsewhere, and compared with PyTorch in float64."""

import functools
import http.server
import json
import os
import pathlib
import runpy
import subprocess
import sys
import threading
import time
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.cli import main
from mixdtp_jax.models.config import (
  MixDTPConfig,
  PReNetConfig,
  RestormerConfig,
  as_mapping,
)
from mixdtp_jax.restoration.restorer import Restorer
from mixdtp_jax.tools.export import command
from mixdtp_jax.weights import pth
from mixdtp_jax.weights.safetensors_file import write_safetensors
from mixdtp_jax.weights.state_dict import to_torch
from tests.conftest import REPOSITORY
from tests.helpers import chromium

onnx = pytest.importorskip('onnx', reason='ONNX is not installed')
pytest.importorskip('onnxruntime', reason='ONNX Runtime is not installed')
pytest.importorskip('torch', reason='PyTorch is not installed')
pytestmark = [pytest.mark.slow, pytest.mark.torch]

_UNET = {
  'width': 4,
  'encoder_blocks': (1, 2, 1, 1),
  'decoder_blocks': (1, 1, 1),
  'refinement_blocks': 1,
  'heads': (1, 2, 1, 4),
}
NETWORKS = {
  'mixdtp': MixDTPConfig(**_UNET, recurrent_width=3, steps=2),
  'coarse': MixDTPConfig(
    **_UNET, steps=0, detail_dilation=False, coupling=False
  ),
  'prenet': PReNetConfig(recurrent_width=4, steps=2, dtype='bfloat16'),
  'restormer': RestormerConfig(**_UNET),
}
# Whole multiples of 8, others, and sides that are shorter than their padding.
SIZES = [
  (1, 16, 24),
  (2, 8, 16),
  (1, 13, 21),
  (1, 5, 9),
  (2, 17, 1),
  (1, 3, 2),
]
ALL = range(len(SIZES))
QUICK = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
)
# Runs a model on some of the images, without this package.
ELSEWHERE = """
import sys
path, images, *numbers = sys.argv[1:]
for name in ('mixdtp_jax', 'flax', 'torch'):
  sys.modules[name] = None
import numpy as np
if path.endswith('.onnx'):
  sys.modules['jax'] = None
  import onnxruntime
  session = onnxruntime.InferenceSession(path)
  def restore(images):
    (restored,) = session.run(None, {'rainy': images.transpose(0, 3, 1, 2)})
    return restored.transpose(0, 2, 3, 1)
else:
  import jax
  from jax import export
  with open(path, 'rb') as file:
    program = export.deserialize(bytearray(file.read()))
  assert program.platforms == ('cpu', 'cuda', 'tpu')
  restore = jax.jit(program.call)
images = np.load(images)
for number in numbers:
  rainy, expected = (images[f'{n}{number}'] for n in ('rainy', 'restored'))
  restored = np.asarray(restore(rainy))
  assert restored.dtype == np.float32 and restored.shape == rainy.shape
  difference = np.abs(restored - expected).max()
  assert difference < 1e-4, (rainy.shape, difference)
"""


SCRIPT = REPOSITORY / 'examples' / 'measure_exports.py'
# Weights under which every part matters, and attention is sharp.
draw = functools.partial(runpy.run_path(str(SCRIPT))['draw'], temperature=3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Weights of each network, and images with what they become."""
  from mixdtp_jax.torch_reference.inference import load_network, make_restore

  folder = tmp_path_factory.mktemp('export')
  random = np.random.default_rng(1)
  for name, cfg in NETWORKS.items():
    params, images = draw(cfg), {}
    path = folder / f'{name}.safetensors'
    write_safetensors(path, cfg, params, notes={'licence': 'CC0-1.0'})
    network = load_network(cfg, params).double()
    restore = make_restore(network, multiple=cfg.multiple)
    for number, size in enumerate(SIZES):
      rainy = random.random((*size, 3), np.float32)
      restored = restore(rainy.astype(np.float64))
      assert np.abs(restored - rainy).mean() > 0.01
      assert restored.std() > 0.02
      images |= {f'rainy{number}': rainy, f'restored{number}': restored}
    np.savez(folder / f'{name}.npz', **images)
  return folder


def assert_agrees(model, images, environment, numbers=ALL):
  result = subprocess.run(
    [sys.executable, '-c', ELSEWHERE, model, images, *map(str, numbers)],
    cwd=pathlib.Path(model).parent,
    env=environment | {'PYTHONPATH': '', 'XLA_FLAGS': QUICK},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr


def export(*words):
  assert main.run_command(['export', *map(str, words)]) == 0


@pytest.mark.parametrize('name', NETWORKS)
def test_onnx_models_agree_at_every_size(name, folder, environment, tmp_path):
  model = tmp_path / 'model.onnx'
  weights = folder / f'{name}.safetensors'
  export('--weights', weights, '--format=onnx', '-o', model)
  assert_agrees(model, folder / f'{name}.npz', environment)
  onnx.checker.check_model(str(model), full_check=True)
  parameters = sum(
    leaf.nbytes for leaf in jax.tree.leaves(draw(NETWORKS[name]))
  )
  assert model.stat().st_size < parameters + 150_000


# Each size is compiled, which takes seconds, but the program is one. Together,
# the U-Nets take all sizes.
@pytest.mark.parametrize(
  ('name', 'numbers'),
  [
    ('mixdtp', (2, 4)),
    ('coarse', (1, 5)),
    ('prenet', ALL),
    ('restormer', (0, 3)),
  ],
)
def test_stablehlo_programs_agree(name, numbers, folder, environment, tmp_path):
  program = tmp_path / 'program.stablehlo'
  weights = folder / f'{name}.safetensors'
  export('--weights', weights, '--format=stablehlo', '-o', program)
  assert_agrees(program, folder / f'{name}.npz', environment, numbers)


@pytest.mark.slow
def test_the_script_that_measures_exports(environment):
  tiny = REPOSITORY / 'tests' / 'helpers' / 'tiny_prenet.py'
  result = subprocess.run(
    [sys.executable, SCRIPT, '--config', tiny, '--side=16', '--repeats=1'],
    env=environment | {'PYTHONPATH': str(REPOSITORY)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr
  onnx, stablehlo, *times = map(json.loads, result.stdout.splitlines())
  for row in (onnx, stablehlo):
    assert len(row['differences']) == 6
    assert max(row['differences']) < 1e-4
  assert [row['runs'] for row in times] == ['jax', 'onnx', 'stablehlo']


def test_the_command_names_the_file_and_says_what_is_in_it(folder, tmp_path):
  command = [sys.executable, '-m', 'mixdtp_jax', 'export', '--format=onnx']
  weights = folder / 'mixdtp.safetensors'
  result = subprocess.run(
    [*command, f'--weights={weights}', '--steps=1'],
    cwd=tmp_path,
    env={'PYTHONPATH': str(REPOSITORY), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=True,
    timeout=300,
  )
  assert result.stdout.startswith(f'{weights} -> mixdtp.onnx: mixdtp, 0.')
  (file,) = tmp_path.iterdir()
  model = onnx.load(file)
  steps = [node for node in model.graph.node if node.op_type == 'Tanh']
  assert len(steps) == 2  # of one step
  facts = {entry.key: entry.value for entry in model.metadata_props}
  expected = as_mapping(NETWORKS['mixdtp']) | {'steps': 1}
  assert json.loads(facts['model']) == json.loads(json.dumps(expected))
  assert facts['licence'] == 'CC0-1.0'
  assert '(batch, 3, height, width)' in facts['protocol']


def test_a_program_is_also_an_archive_with_its_metadata(folder, tmp_path):
  cfg = NETWORKS['prenet']
  weights, program = tmp_path / 'weights.pth', tmp_path / 'program.stablehlo'
  pth.write_pth(to_torch(draw(cfg), cfg), weights)
  export('--weights', weights, '--format', 'stablehlo', '-o', program)
  with zipfile.ZipFile(program) as archive:
    facts = json.loads(archive.read('metadata.json'))
  assert json.loads(facts['model']) == as_mapping(PReNetConfig(4))
  assert facts['licence'] == 'not recorded'  # a .pth file has no notes
  assert '(batch, height, width, 3)' in facts['protocol']


def test_what_cannot_be_exported_is_one_line(
  folder, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  weights = str(folder / 'prenet.safetensors')

  def refused(*words):
    assert main.run_command(['export', '--format=onnx', *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line

  assert 'nowhere: no weights there' in refused('--weights=nowhere')
  pathlib.Path('here').touch()
  assert 'here exists already' in refused('--weights', weights, '-o', 'here')
  assert 'is a URL' in refused('--weights', weights, '-o', 'gs://a/b.onnx')
  assert 'ends with .stablehlo, but --format is onnx' in refused(
    '--weights', weights, '-o', 'x.stablehlo'
  )
  assert '--runtime DIR' in refused('--weights', weights, '--runtime=.')
  assert 'there is no ort.wasm.min.mjs' in refused(
    '--weights', weights, '--format=web', '--runtime=.'
  )
  monkeypatch.setattr(command, '_MOST_BYTES', 1000)
  assert 'GB of parameters' in refused('--weights', weights)
  monkeypatch.setitem(sys.modules, 'onnx', None)
  assert "[export]'" in refused('--weights', weights)
  assert [path.name for path in tmp_path.iterdir()] == ['here']


def test_nothing_is_left_of_an_export_that_fails(folder, tmp_path, monkeypatch):
  def write_half(path, *_):
    path.write_bytes(b'half')
    raise OSError('the disk is full')

  monkeypatch.setattr(command, '_write_onnx', write_half)
  with pytest.raises(OSError, match='full'):
    command.export(
      folder / 'prenet.safetensors', 'onnx', tmp_path / 'model.onnx'
    )
  assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def site(folder, tmp_path_factory):
  """A folder with the page, and the address at which it is served."""
  runtime = os.environ.get('ONNXRUNTIME_WEB')
  if not runtime:
    pytest.skip('ONNXRUNTIME_WEB names no folder with ONNX Runtime Web')
  site = tmp_path_factory.mktemp('web') / 'site'
  weights = folder / 'mixdtp.safetensors'
  export(
    f'--weights={weights}', '--format=web', f'--runtime={runtime}', '-o', site
  )
  asked = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_request(self, *_):
      asked.append(self.path)

  handler = functools.partial(Handler, directory=site)
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  threading.Thread(target=server.serve_forever).start()
  # By this name, the server is another origin.
  with (site / 'worker.js').open('a') as script:
    outside = f'http://localhost:{server.server_port}/outside'
    script.write(f"fetch('{outside}', {{mode: 'no-cors'}}).catch(() => 0);\n")
  yield site, f'http://127.0.0.1:{server.server_port}/', asked
  server.shutdown()
  server.server_close()


@pytest.mark.browser
@chromium.NEEDED
def test_the_page_restores_what_the_command_restores(site, folder, tmp_path):
  site, address, asked = site
  random = np.random.default_rng(2)
  rainy = random.integers(0, 256, (45, 61, 3), np.uint8)
  Image.fromarray(rainy).save(tmp_path / 'rainy.png')
  Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(tmp_path / 'big.png')
  (tmp_path / 'broken.png').write_bytes(b'nothing')
  settings = json.loads((site / 'settings.json').read_text())
  assert settings['most_pixels'] > 1e6
  settings['most_pixels'] = 80_000
  (site / 'settings.json').write_text(json.dumps(settings))
  page = chromium.Page(tmp_path)
  try:
    page.send('Page.navigate', url=address)
    page.wait("document.querySelector('#about')?.textContent")
    names = ('rainy.png', 'big.png', 'broken.png')
    page.choose('#file', *(tmp_path / name for name in names))
    page.wait("document.querySelectorAll('progress[hidden]').length == 3", 120)
    broken, big, done = page.run(
      "[...document.querySelectorAll('.state')].map((e) => e.textContent)"
    )
    assert 'cannot read it' in broken
    assert '300 × 300 pixels are more than' in big
    assert done.startswith('61 × 45 pixels, restored in'), done
    dry = tmp_path / 'rainy_derained.png'
    where = {'behavior': 'allow', 'downloadPath': str(tmp_path)}
    page.send('Page.setDownloadBehavior', **where)
    page.run("document.querySelector('.download:not([hidden])').click()")
    for _ in range(200):
      if dry.is_file():
        break
      time.sleep(0.1)
    restored = np.asarray(Image.open(dry))
    expected = Restorer(folder / 'mixdtp.safetensors')(rainy)
    assert np.abs(restored[..., :3].astype(int) - expected).max() <= 1
    assert not page.errors
    outside = [u for u in page.requests if not u.startswith((address, 'blob:'))]
    assert set(outside) <= {'about:blank'}
    assert '/network.onnx' in asked
    assert '/outside' not in asked
    # A network that gives NaN.
    model = onnx.load(site / 'network.onnx')
    weights = max(model.graph.initializer, key=lambda w: len(w.raw_data))
    count = len(weights.raw_data) // 4
    weights.raw_data = np.full(count, np.nan, '<f4').tobytes()
    onnx.save(model, site / 'network.onnx')
    page.send('Page.reload', ignoreCache=True)
    page.wait(
      "!document.querySelector('.state.error, .download:not([hidden])')"
    )
    page.wait("document.querySelector('#about')?.textContent")
    page.choose('#file', tmp_path / 'rainy.png')
    failed = page.wait("document.querySelector('.state.error')?.textContent")
    assert 'values that are not finite' in failed
  finally:
    page.close()
