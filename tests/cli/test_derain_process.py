"""`mixdtp derain` as a user runs it: in a process of its own."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import mixdtp_jax
from mixdtp_jax.restoration.pictures import open_picture
from tests.conftest import REPOSITORY
from tests.helpers import hostile
from tests.helpers.terminal import read_all

PROGRAM = 'from mixdtp_jax.cli.main import main; main("derain")'


def command(*words):
  return [sys.executable, '-c', PROGRAM, *map(str, words)]


@pytest.fixture
def process(tmp_path, tiny_weights):
  """Arguments to run the command in a process of its own."""
  return {
    'cwd': tmp_path,
    'env': os.environ
    | {'PYTHONPATH': str(REPOSITORY), 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'},
  }


def test_a_pipe_gives_what_a_program_gets(process, tiny_weights):
  rainy = hostile.sound('png_16_3')
  run = subprocess.run(
    command('-', '--weights', tiny_weights),
    input=rainy,
    capture_output=True,
    timeout=300,
    **process,
  )
  assert run.returncode == 0, run.stderr.decode()
  expected = mixdtp_jax.load(tiny_weights)(hostile.wide(3))
  (frame,) = open_picture(run.stdout, 'stdout').frames()
  assert frame.pixels.dtype == np.uint16
  difference = frame.pixels.astype(int) - expected
  assert np.abs(difference).max() <= 1
  assert Image.open(io.BytesIO(run.stdout)).format == 'PNG'


@pytest.mark.slow
def test_a_folder_as_a_user_runs_it(process, tmp_path, tiny_weights):
  for name in ('jpeg', 'png_alpha', 'gif_animated', 'tiff_16', 'webp', 'bmp'):
    suffix = name.partition('_')[0]
    (tmp_path / f'{name}.{suffix}').write_bytes(hostile.sound(name))
  (tmp_path / 'bad.png').write_bytes(hostile.sound('png')[:300])
  run = subprocess.run(
    command('.', '-o', 'dry/', '--json', '--weights', tiny_weights),
    capture_output=True,
    text=True,
    timeout=300,
    **process,
  )
  assert run.returncode == 1
  assert len(run.stderr.splitlines()) == 2, run.stderr
  assert 'bad.png cannot be decoded' in run.stderr
  lines = [json.loads(line) for line in run.stdout.splitlines()]
  assert [line['status'] for line in lines].count('restored') == 6
  for line in lines:
    if line['status'] == 'restored':
      before, after = (
        Image.open(tmp_path / line[side]) for side in ('input', 'output')
      )
      assert before.format == after.format
      assert (line['width'], line['height']) == after.size


def test_names_that_the_code_page_lacks(process, tmp_path):
  """As where stdout of Windows is redirected; sheets need no network."""
  for name in ('a\xfc', 'b'):
    for file in (f'{name}.png', f'{name}_derained.png'):
      (tmp_path / file).write_bytes(hostile.sound('png'))
  process['env']['PYTHONIOENCODING'] = 'ascii'
  run = subprocess.run(
    command('a\xfc.png', 'b.png', '--compare'),
    capture_output=True,
    text=True,
    timeout=300,
    **process,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.splitlines() == [
    r'a\xfc.png -> a\xfc_compare.jpg',
    'b.png -> b_compare.jpg',
  ]
  assert (tmp_path / 'a\xfc_compare.jpg').exists()


# A laptop: no /proc, no compiler, and nothing that Windows does not have.
BARE = """
import builtins, io, os, signal, sys
import jax, psutil  # need some of it on Linux
for name in ('fcntl', 'grp', 'pwd', 'resource', 'termios'):
  sys.modules[name] = None
for name in (
  'fork', 'forkpty', 'getgid', 'getloadavg', 'getpgid', 'getuid', 'killpg',
  'mkfifo', 'nice', 'posix_fadvise', 'sched_getaffinity', 'sched_getscheduler',
  'setsid', 'statvfs', 'sysconf', 'uname',
):
  delattr(os, name)
for name in ('SIGALRM', 'SIGHUP', 'SIGKILL', 'SIGUSR1', 'alarm', 'setitimer'):
  delattr(signal, name)
opened = builtins.open
def no_proc(file, *args, **options):
  caller = sys._getframe(1).f_globals['__name__']
  if str(file).startswith('/proc') and not caller.startswith('psutil'):
    raise FileNotFoundError(2, 'No such file or directory', str(file))
  return opened(file, *args, **options)
builtins.open = io.open = no_proc
os.environ |= {'PATH': '', 'CXX': '/absent/c++'}
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='it is such a machine')
def test_it_runs_on_a_bare_machine(process, tmp_path):
  (tmp_path / 'a.png').write_bytes(hostile.sound('png'))
  words = ('a.png', '--json')
  process['env']['XDG_CACHE_HOME'] = str(tmp_path / 'cache')
  run = subprocess.run(
    [sys.executable, '-c', BARE + PROGRAM, *words],
    capture_output=True,
    text=True,
    timeout=300,
    **process,
  )
  assert run.returncode == 0, run.stderr
  line = json.loads(run.stdout)
  assert (line['status'], line['peak_memory']) == ('restored', None)
  assert (tmp_path / 'a_derained.png').exists()


MEASURED = PROGRAM.replace(
  'main("derain")',
  """
try:
  main("derain")
finally:
  print(open('/proc/self/status').read())
""",
)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='no peak')
def test_the_least_memory_is_enough_and_is_kept_to(process, tmp_path):
  """Of the shipped network, with compiling, at 2 megapixels."""
  hostile.smooth(0, 1080, 1920).save(tmp_path / 'a.png')
  process['env']['XDG_CACHE_HOME'] = str(tmp_path / 'cache')

  def run(memory):
    return subprocess.run(
      [sys.executable, '-c', MEASURED, 'a.png', '--memory', f'{memory}MB'],
      capture_output=True,
      text=True,
      timeout=300,
      **process,
    )

  refused = run(50)
  assert refused.returncode == 1
  least = int(re.search(r'at least (\d+) MB', refused.stderr)[1])
  restored = run(least)
  assert restored.returncode == 0, restored.stderr
  peak = 1024 * int(re.search(r'VmHWM:\s*(\d+) kB', restored.stdout)[1])
  assert peak < least * 10**6


# A shell's background job ignores SIGINT, and so do its children.
STOPPABLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(os.name == 'nt', reason='signals are different there')
@pytest.mark.parametrize(
  ('sign', 'status'),
  [('SIGINT', 130), pytest.param('SIGTERM', 143, marks=pytest.mark.slow)],
)
def test_stopping_leaves_whole_files_only(
  process, tmp_path, tiny_weights, sign, status
):
  # Names so long that the lines fill the pipe: the command waits for a reader.
  folder = tmp_path / ('in' * 100)
  folder.mkdir()
  for number in range(400):
    (folder / f'{number:03}.png').write_bytes(hostile.sound('png'))
  words = command('.', '-o', 'dry/', '--weights', tiny_weights)
  running = subprocess.Popen(
    [sys.executable, '-c', STOPPABLE, *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **process,
  )
  for _ in range(3):
    assert running.stdout.readline(), running.stderr.read()
  running.send_signal(getattr(signal, sign))
  _, err = running.communicate(timeout=120)
  assert running.returncode == status, err
  assert 'Traceback' not in err
  written = [p for p in (tmp_path / 'dry').rglob('*') if not p.is_dir()]
  assert 3 <= len(written) < 400
  for path in written:
    assert path.suffix == '.png', path
    Image.open(path).load()


@pytest.mark.skipif(os.name == 'nt', reason='there are no pseudo-terminals')
def test_a_terminal_shows_the_time_left(process, tmp_path, tiny_weights):
  import pty

  for number in range(3):
    (tmp_path / f'{number}.png').write_bytes(hostile.sound('png'))
  ours, theirs = pty.openpty()
  shown = []
  reader = threading.Thread(target=lambda: shown.append(read_all(ours)))
  reader.start()
  run = subprocess.run(
    command('.', '-o', 'dry/', '--weights', tiny_weights),
    stdout=subprocess.PIPE,
    stderr=theirs,
    text=True,
    timeout=300,
    **process,
  )
  os.close(theirs)
  reader.join()
  (text,) = shown
  assert run.returncode == 0, text
  assert len(run.stdout.splitlines()) == 3
  assert 'loading the network' in text
  assert re.search(r'\d+ % of 3 pictures, \d+ s left', text)
  assert text.rstrip().endswith('3 restored')
