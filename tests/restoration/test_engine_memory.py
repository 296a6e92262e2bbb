"""The engine keeps to its memory, by scratch files that do not stay."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest

from mixdtp_jax.restoration import memory_plan, pieces
from tests.helpers import engines

pytestmark = pytest.mark.usefixtures(
  'quick_compiler', 'own_cache', 'small_pieces'
)

MEGABYTE = 10**6


@pytest.fixture
def no_room(monkeypatch):
  """All maps but the image and the result lie in files."""
  monkeypatch.setattr(memory_plan, 'room_for_maps', lambda *_, **__: 0)


@pytest.fixture
def files(monkeypatch):
  """The scratch files that are made, with what they are written."""
  made = []

  class Listening(pieces.FileMap):
    def __setitem__(self, rows, values):
      made.append((self.shape, len(values)))
      super().__setitem__(rows, values)

  monkeypatch.setattr(memory_plan, 'FileMap', Listening)
  return made


@pytest.mark.parametrize('name', ['mixdtp', 'restormer', 'prenet'])
def test_files_change_nothing(name, tmp_path, no_room, files, monkeypatch):
  image = engines.picture(37, 51)
  engine = engines.engine(name, scratch=tmp_path)
  restored = engine(image)
  assert files and not list(tmp_path.iterdir())
  # A file is written in pieces.
  assert {rows for _, rows in files} <= set(range(1, 17))
  files.clear()
  monkeypatch.undo()
  engines.use_pieces(monkeypatch, 16)
  np.testing.assert_array_equal(engine(image), restored)
  assert not files


@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_run_leaves_no_file(error, tmp_path, no_room, files):
  def interrupt(part):
    if part > 0.5:
      raise error

  image = engines.picture(37, 51)
  engine = engines.engine('mixdtp', scratch=tmp_path)
  with pytest.raises(error):
    engine(image, interrupt)
  assert files and not list(tmp_path.iterdir())
  assert engine(image).shape == image.shape  # it goes on


def test_least_memory_is_named():
  image = engines.picture(37, 51)
  with pytest.raises(ValueError, match='needs at least') as refusal:
    engines.engine('prenet', memory=MEGABYTE)(image)
  assert '1 MB' in str(refusal.value) and '--memory' in str(refusal.value)
  least = int(re.search(r'at least (\d+) MB', str(refusal.value))[1])
  engine = engines.engine('prenet', memory=least * MEGABYTE)
  assert engine(image).shape == image.shape


@pytest.mark.parametrize('memory', [0, -1])
def test_no_memory_is_refused(memory):
  with pytest.raises(ValueError, match=f'memory = {memory}: needs'):
    engines.engine('prenet', memory=memory)


def test_a_device_without_memory_is_told_with_advice(monkeypatch):
  engine = engines.engine('prenet')

  def fail(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  monkeypatch.setattr('mixdtp_jax.restoration.engine._run', fail)
  with pytest.raises(MemoryError, match='--memory, or try --dtype bfloat16'):
    engine(engines.picture(37, 51))


@pytest.mark.parametrize(
  ('line', 'folder', 'names'),
  [
    ('0::/jobs/mine', 'jobs/mine', ('max', 'current')),
    ('0::/jobs/mine', 'jobs', ('max', 'current')),  # its parent has the limit
    ('0::/elsewhere', '', ('max', 'current')),  # as in a container
    ('4:cpu,memory:/jobs', 'memory/jobs', ('limit_in_bytes', 'usage_in_bytes')),
  ],
)
def test_half_of_the_free_memory(monkeypatch, tmp_path, line, folder, names):
  memory = type('Memory', (), {'available': 1000 * MEGABYTE})
  monkeypatch.setattr(memory_plan.psutil, 'virtual_memory', lambda: memory)
  monkeypatch.setattr(memory_plan, 'held', lambda: 300 * MEGABYTE)
  monkeypatch.setattr(memory_plan, '_ROOT', tmp_path)
  assert memory_plan.half_of_free() == 800 * MEGABYTE
  for path in ('proc/self', group := f'sys/fs/cgroup/{folder}'):
    (tmp_path / path).mkdir(parents=True)
  (tmp_path / 'proc/self/cgroup').write_text(f'9:pids:/\n{line}\n')
  limit, used = (tmp_path / group / f'memory.{name}' for name in names)
  limit.write_text(f'{700 * MEGABYTE}\n')
  used.write_text(f'{400 * MEGABYTE}\n')
  stat = f'anon 5\ninactive_file {100 * MEGABYTE}\n'
  (tmp_path / group / 'memory.stat').write_text(stat)
  assert memory_plan.half_of_free() == 500 * MEGABYTE
  limit.write_text('max\n')
  assert memory_plan.half_of_free() == 800 * MEGABYTE


def test_a_full_disk_is_told_before(tmp_path, no_room, monkeypatch):
  usage = type('Usage', (), {'free': 5 * MEGABYTE})
  monkeypatch.setattr(memory_plan.shutil, 'disk_usage', lambda _: usage)
  with pytest.raises(OSError, match='5 MB are free.*--scratch'):
    engines.engine('prenet', scratch=tmp_path)(engines.picture(1000, 600))


_CHILD = """
import os, sys, threading
import numpy as np, psutil
from tests.helpers import engines
from mixdtp_jax.restoration import memory_plan

peak, done, files = [0], threading.Event(), []
def watch():
  while not done.wait(0.01):
    peak[0] = max(peak[0], psutil.Process().memory_info().rss)
threading.Thread(target=watch, daemon=True).start()
made = memory_plan.FileMap
memory_plan.FileMap = lambda *args: files.append(args) or made(*args)
image = np.random.default_rng(0).random((1080, 1920, 3), np.float32)
if len(sys.argv) > 3:
  memory_plan.room_for_maps = lambda *_, **__: 0
engine = engines.engine('mixdtp', memory=int(sys.argv[1]), scratch=sys.argv[2])
def tell(part):
  if files and len(sys.argv) > 3:
    print('ready', flush=True)
    sys.stdin.read()
restored = engine(image, tell)
done.set()
print(peak[0], len(files), restored.mean())
"""


def _child(*arguments):
  environment = os.environ | {'XLA_FLAGS': '', 'CXX': 'no-such-compiler'}
  return subprocess.Popen(
    [sys.executable, '-c', _CHILD, *map(str, arguments)],
    env=environment | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'},
    cwd=pathlib.Path(__file__).parents[2],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


@pytest.mark.slow
def test_two_megapixels_in_a_fixed_budget(tmp_path):
  means, counts = set(), []
  for memory in (600 * MEGABYTE, 2000 * MEGABYTE):
    child = _child(memory, tmp_path)
    peak, count, mean = child.communicate()[0].split()
    assert int(peak) <= memory
    counts.append(int(count))
    means.add(mean)
  assert counts[0] > 0 and counts[1] == 0
  assert len(means) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == 'win32', reason='it ends processes so')
def test_a_killed_process_leaves_no_file(tmp_path):
  child = _child(600 * MEGABYTE, tmp_path, 'wait')
  assert child.stdout.readline() == 'ready\n'
  child.send_signal(signal.SIGKILL)
  child.communicate()
  assert not list(tmp_path.iterdir())


def test_scratch_lies_in_the_users_cache(monkeypatch, tmp_path, no_room):
  """And not in /tmp, which may be memory, unless somebody names that."""
  monkeypatch.delenv('TMPDIR', raising=False)
  monkeypatch.setattr(tempfile, 'tempdir', '/tmp')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  folders = []

  class Listening(pieces.FileMap):
    def __init__(self, shape, dtype, folder):
      folders.append(folder)
      super().__init__(shape, dtype, folder)

  monkeypatch.setattr(memory_plan, 'FileMap', Listening)
  engine = engines.engine('prenet')
  engine(engines.picture(9, 9))
  assert set(folders) == {str(tmp_path / 'mixdtp_jax')}
  monkeypatch.setenv('TMPDIR', '/tmp')
  engine(engines.picture(9, 9))
  assert set(folders[len(folders) // 2 :]) == {'/tmp'}
