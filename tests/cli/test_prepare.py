import os
import pathlib
import signal
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.cli import main
from mixdtp_jax.data import matching
from mixdtp_jax.data.datasets import registry

ROOT = pathlib.Path(__file__).parents[2]


# The signal comes when the copy is written, but not yet in its place.
_STOPPED = """
import os, signal, sys
from mixdtp_jax.cli import main
from mixdtp_jax.data.datasets import registry

if signal_number := int(sys.argv.pop(1)):
  registry.seal = lambda path: os.kill(os.getpid(), signal_number)
main.main('prepare')
"""


def prepare(number, *arguments):
  return subprocess.run(
    [sys.executable, '-c', _STOPPED, str(int(number)), *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def make_pairs(source):
  for split in ('train', 'test'):
    for side in ('rainy', 'clean'):
      path = source / split / side / '1.png'
      path.parent.mkdir(parents=True)
      Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(path)


@pytest.mark.slow
def test_a_stopped_command_starts_again(tmp_path):
  source, data = tmp_path / 'source', tmp_path / 'data'
  make_pairs(source)
  arguments = ('pairs', '--source', source, '--data_dir', data)
  stopped = prepare(signal.SIGTERM, *arguments)
  assert (stopped.returncode, stopped.stderr) == (1, 'stopped by SIGTERM\n')
  assert not list(data.glob('pairs/*'))
  assert prepare(signal.SIGKILL, *arguments).returncode == -signal.SIGKILL
  (left,) = data.glob('pairs/*')
  assert left.name.startswith('.writing-')
  result = prepare(0, *arguments)
  assert result.returncode == 0, result.stderr
  assert 'pairs: train 1, test 1, in ' in result.stdout
  assert [p.name for p in data.glob('pairs/*')] == ['1.0.0']
  assert not result.stderr


def test_any_file_name_is_prepared_and_scored(tmp_path, capsys):
  """Names in other encodings, and a name in both of Unicode's normal forms."""
  source, data = tmp_path / 'source', tmp_path / 'data'
  make_pairs(source)
  other = os.fsdecode(b'caf\xe9.png')
  forms = [unicodedata.normalize(form, 'é.png') for form in ('NFC', 'NFD')]
  for side, form in zip(('rainy', 'clean'), forms, strict=True):
    folder = source / 'test' / side
    for name in (other, form):
      (folder / name).write_bytes((folder / '1.png').read_bytes())
  words = ['prepare', 'pairs', f'--source={source}', f'--data_dir={data}']
  assert main.run_command(words) == 0
  pairs = registry.open_split(
    'pairs', source=str(source), data_dir=str(data), split='test'
  )
  names = [pairs[i]['name'] for i in range(3)]
  assert names == ['1', r'caf\udce9', 'é']
  assert [matching.open_folder(source / 'test')[i]['name'] for i in range(3)]
  (source / 'test/rainy' / forms[1]).write_bytes(b'')  # beside its twin
  capsys.readouterr()
  assert main.run_command(words) == 1
  line = capsys.readouterr().err.splitlines()[-1]
  assert r"'\xe9.png' and 'e\u0301.png' have one stem" in line.replace(
    r"'e\u0301.png' and '\xe9.png'", r"'\xe9.png' and 'e\u0301.png'"
  )


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('ddn', 'prepare ddn --source FOLDER'),
    ('rain100', "data set 'rain100' is unknown; did you mean rain100"),
    (os.fsdecode(b'pairs --source {} --data_dir d\xe9'), r"'d\udce9': Tensor"),
  ],
)
def test_an_error_is_one_line_that_names_the_remedy(
  name, message, tmp_path, capsys
):
  make_pairs(tmp_path / 'source')
  name = name.format(tmp_path / 'source')
  status = main.run_command(
    ['prepare', '--data_dir', str(tmp_path), *name.split()]
  )
  assert status == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('error: ')
  assert message in line
