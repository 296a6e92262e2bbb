"""The examples run as they are."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import mixdtp_jax
from tests.conftest import REPOSITORY
from tests.helpers import hostile

pytestmark = pytest.mark.slow

EXAMPLES = REPOSITORY / 'examples'


def test_the_script(tmp_path):
  hostile.smooth().save(tmp_path / 'rainy.png')
  result = subprocess.run(
    [sys.executable, EXAMPLES / 'restore.py', 'rainy.png', 'dry.png'],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(REPOSITORY), 'XLA_FLAGS': ''},
    timeout=300,
  )
  assert result.returncode == 0, result.stderr
  restored = np.asarray(Image.open(tmp_path / 'dry.png'))
  rainy = np.asarray(hostile.smooth())
  assert restored.shape == rainy.shape
  assert (restored != rainy).any()


def test_the_script_without_pictures_says_how_it_is_used():
  result = subprocess.run(
    [sys.executable, EXAMPLES / 'restore.py'],
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
    timeout=300,
  )
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.endswith('python restore.py RAINY RESTORED.')


@pytest.fixture
def notebook():
  return json.loads((EXAMPLES / 'restore.ipynb').read_text())


def test_the_notebook(notebook, tiny_weights, monkeypatch):
  load = mixdtp_jax.load
  monkeypatch.setattr(mixdtp_jax, 'load', lambda: load(tiny_weights))
  monkeypatch.chdir(EXAMPLES)
  names = {}
  for cell in notebook['cells']:
    if cell['cell_type'] == 'code':
      assert not cell['outputs'], 'clear the outputs before a commit'
      exec(''.join(cell['source']), names)
  assert names['restored'].size == Image.open('../docs/rainy.jpg').size
