"""Tests of atomic writing."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from mixdtp_jax.runtime.files import local_path, replacing


@pytest.mark.parametrize('full', [False, True])
def test_errors_name_the_file_and_leave_nothing(tmp_path, full):
  path = tmp_path / 'a.onnx'
  path.mkdir()  # what a file cannot replace
  with pytest.raises(OSError) as caught, replacing(path) as temporary:  # noqa: PT011
    pathlib.Path(temporary).write_text('half')
    if full:
      raise OSError(errno.ENOSPC, 'No space left on device')
  assert caught.value.filename == str(path)
  assert list(tmp_path.iterdir()) == [path]


def test_only_what_a_dead_process_began_is_removed(tmp_path):
  code = (
    'import os, signal, sys\n'
    'from mixdtp_jax.runtime.files import replacing\n'
    'with replacing(sys.argv[1]) as name:\n'
    "  open(name, 'w').write('half')\n"
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  path = tmp_path / 'a.png'
  killed = subprocess.run([sys.executable, '-c', code, path], check=False)
  assert killed.returncode == -signal.SIGKILL
  assert str(os.getpid()) not in (left := os.listdir(tmp_path))[0]
  with replacing(tmp_path / 'b.png') as temporary:
    assert not set(left) & set(os.listdir(tmp_path))
    pathlib.Path(temporary).write_text('mine')
    subprocess.run(
      [
        sys.executable,
        '-c',
        code.replace('  os.kill', '  0 and os.kill'),
        path,
      ],
      check=True,
    )
  assert sorted(os.listdir(tmp_path)) == ['a.png', 'b.png']


def test_the_home_of_nobody_is_no_folder():
  with pytest.raises(ValueError, match='~nobody-here/a: there is no such user'):
    local_path('~nobody-here/a')
