"""`mixdtp derain` in this process, with a stand-in for the network."""

import pathlib
import signal

import numpy as np
import pytest
from PIL import Image

import mixdtp_jax
from mixdtp_jax.cli.main import run_command
from tests.helpers import hostile


class Negative:
  """Stands for a network: dark becomes light, and transparency stays."""

  def __init__(self):
    self.seen = []  # pixels, in their order
    self.stop_after = None  # the number of pictures before Ctrl-C

  def check(self, height, width, kept=0):
    pass

  def restore(self, pixels, progress=lambda part: None):
    if len(self.seen) == self.stop_after:
      raise KeyboardInterrupt
    self.seen.append(pixels)
    progress(0.5)
    result = pixels.copy()
    colours = pixels.shape[2] - 1 + pixels.shape[2] % 2  # without alpha
    result[..., :colours] = np.iinfo(pixels.dtype).max - pixels[..., :colours]
    progress(1)
    return result


@pytest.fixture
def derain(tmp_path, monkeypatch, capfd):
  """Runs the command in a folder of its own; returns status, output, errors.

  Its `network` restores, and `loaded` lists weights and options as given.
  """
  monkeypatch.chdir(tmp_path)

  def load(weights, **options):
    run.loaded.append((weights, options))
    return run.network

  monkeypatch.setattr(mixdtp_jax, 'load', load)

  def run(*words):
    before = signal.getsignal(signal.SIGTERM), Image.MAX_IMAGE_PIXELS
    try:
      status = run_command(['derain', *map(str, words)])
    except SystemExit as stopped:
      status = stopped.code
    finally:
      signal.signal(signal.SIGTERM, before[0])
      Image.MAX_IMAGE_PIXELS = before[1]
    return status, *capfd.readouterr()

  run.network, run.loaded = Negative(), []
  return run


def put(name, kind='png', data=None):
  """Writes a file: a small picture, or other data."""
  path = pathlib.Path(name)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(hostile.sound(kind) if data is None else data)
  return path
