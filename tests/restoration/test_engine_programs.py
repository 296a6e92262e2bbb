"""Programs: few, for pieces of any image, and kept for other processes."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mixdtp_jax.restoration import programs, shapes
from mixdtp_jax.restoration.steps import MapSpec, Step, steps_of
from tests.helpers import engines


@pytest.fixture(scope='module', autouse=True)
def _fewer_optimizations():
  """Compiles faster; without JAX's cache, since some tests count."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  return tmp_path / 'mixdtp_jax' / 'programs'


@pytest.fixture
def compilations():
  """What JAX compiles."""
  seen = []

  def listen(event, *_, **__):
    if event.endswith('backend_compile_duration'):
      seen.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield seen
  jax.monitoring.unregister_event_duration_listener(listen)


def test_no_size_is_compiled_for(cache, compilations):
  engine = engines.engine('prenet')
  engine(engines.picture(70, 50))
  assert len(compilations) == len(list(cache.iterdir())) == 2
  for size in ((1, 1), (50, 70), (33, 100), (99, 7)):
    engine(engines.picture(*size))
  assert len(compilations) == 2


def test_programs_are_kept(cache, compilations):
  image = engines.picture(20, 30)
  expected = engines.engine('prenet')(image)
  first, second = sorted(cache.iterdir())
  os.utime(first, (0, 0))
  compilations.clear()
  engine = engines.engine('prenet')
  np.testing.assert_array_equal(engine(image), expected)
  assert not compilations
  assert first.stat().st_mtime > time.time() - 1000  # when it was used
  # A damaged file is as good as none.
  first.write_bytes(first.read_bytes()[:-1])
  second.write_bytes(b'')
  np.testing.assert_array_equal(engines.engine('prenet')(image), expected)
  assert len(compilations) == 2
  compilations.clear()
  engines.engine('prenet')(image)
  assert not compilations


def test_other_weights_are_no_other_programs(cache, compilations):
  engines.engine('prenet')(engines.picture(9, 9))
  compilations.clear()
  cfg = engines.NETWORKS['prenet']
  engines.Engine(cfg, engines.weights_at_start(cfg))(engines.picture(9, 9))
  assert not compilations


def test_the_folder_has_a_limit(cache, monkeypatch):
  monkeypatch.setattr(programs, 'LIMIT', 150_000)
  kept = programs.Programs(jax.devices()[:1])

  def add(params, bounds, x):
    return x + 1

  step = Step(add, {}, ((MapSpec('x', 0, 3), 0),), (), 0)
  names = []
  for number in range(1, 31):
    kept.get([(step, (number, 2))])
    (new,) = {path.name for path in cache.iterdir()} - set(names)
    names.append(new)
    os.utime(cache / new, (number, number))
  files = {path.name: path.stat().st_size for path in cache.iterdir()}
  assert sum(files.values()) <= 150_000
  assert sorted(files) == sorted(names[-len(files) :]) and len(files) > 1
  # Another process knows which sizes are there.
  others = programs.Programs(jax.devices()[:1])
  assert len(others.cores(step)) == len(files)
  assert (30, 2) in others.cores(step) and (1, 2) not in others.cores(step)


@pytest.mark.parametrize(
  ('place', 'value'),
  [
    ('mixdtp_jax.ops.cpu.build.processor', lambda: 'another'),
    ('jax.__version__', '0.0.1'),
    ('jax.lib.__version__', '0.0.1'),
  ],
)
def test_another_processor_or_version_has_its_own(
  cache, monkeypatch, place, value
):
  step = Step(abs, {}, ((MapSpec('x', 0, 3), 0),), (), 0)
  names = [programs.Programs(jax.devices()[:1]).name(step)]
  names.append(programs.Programs(jax.devices()[:1]).name(step))
  monkeypatch.setattr(place, value)
  names.append(programs.Programs(jax.devices()[:1]).name(step))
  assert names[0] == names[1] != names[2]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
  (tmp_path / 'mixdtp_jax').write_text('no folder')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  image = engines.picture(9, 9)
  assert engines.engine('prenet')(image).shape == image.shape


@pytest.mark.skipif(not hasattr(os, 'getuid'), reason='there are no owners')
@pytest.mark.parametrize('fault', ['mode', 'owner'])
def test_programs_of_others_are_not_loaded(cache, monkeypatch, fault):
  image = engines.picture(9, 9)
  expected = engines.engine('prenet')(image)
  assert cache.stat().st_mode & 0o777 == 0o700
  if fault == 'mode':
    cache.chmod(0o770)
  else:
    monkeypatch.setattr(os, 'getuid', lambda: cache.stat().st_uid + 1)
  reads = []
  monkeypatch.setattr(programs.pickle, 'loads', reads.append)
  engine = engines.engine('prenet')
  np.testing.assert_array_equal(engine(image), expected)
  assert engine.programs > 0 and not reads


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compiler')
def test_jaxs_own_cache_is_left_alone(cache):
  """Programs that JAX's cache gave cannot be kept once more."""
  image = engines.picture(9, 9)
  expected = engines.engine('coarse')(image)
  for path in cache.iterdir():
    path.unlink()
  for _ in range(2):
    np.testing.assert_array_equal(engines.engine('coarse')(image), expected)


def _first(function):
  """The first step of the tiny network with this function."""
  steps = steps_of(engines.NETWORKS['mixdtp'], engines.weights('mixdtp'))
  return next(step for step in steps if step.function.__name__ == function)


@pytest.mark.parametrize(
  ('size', 'core'),
  [((480, 320), (160, 160)), ((1, 1), (16, 16)), ((176, 96), (176, 96))],
)
def test_the_size_that_wastes_least_is_chosen(size, core):
  chooser = shapes.Shapes(devices=1, accelerator=False)
  assert chooser.choose(_first('block'), size, set()).core == core


def test_a_better_size_is_compiled_once_it_pays():
  chooser = shapes.Shapes(devices=1, accelerator=False)
  step, size = _first('refine'), (320, 416)  # 160x208 fits
  have, cores = {(192, 192)}, []
  for _ in range(200):
    grid = chooser.choose(step, size, have)
    chooser.count(step, grid)
    cores.append(grid.core)
    have.add(grid.core)
  changed = cores.index((160, 208))
  assert cores == [(192, 192)] * changed + [(160, 208)] * (200 - changed)
  assert changed > 2
  # What is there already is taken at once.
  assert shapes.Shapes(1, False).choose(step, size, have).core == (160, 208)


_CHILD = """
import builtins, pathlib, sys
sys.modules['fcntl'] = None
class Hidden(type(pathlib.Path())):
  def _check(self):
    if self.parts[:2] in (('/', 'proc'), ('/', 'sys')):
      raise FileNotFoundError(self)
  def read_text(self, *a, **k):
    self._check()
    return super().read_text(*a, **k)
  def exists(self):
    self._check()
    return super().exists()
pathlib.Path = Hidden
import numpy as np
from tests.helpers import engines
image = engines.picture(70, 50)
restored = engines.engine('mixdtp')(image)
np.testing.assert_allclose(restored, engines.whole('mixdtp')(image), atol=1e-5)
print(engines.engine('mixdtp').programs)
"""


@pytest.mark.slow
@pytest.mark.parametrize('compiler', ['c++', 'no-such-compiler'])
def test_on_a_single_device(compiler, cache):
  """With native code and without; and where there is no /proc, no fcntl."""
  result = subprocess.run(
    [sys.executable, '-c', _CHILD],
    env=os.environ | {'XLA_FLAGS': '', 'CXX': compiler},
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
