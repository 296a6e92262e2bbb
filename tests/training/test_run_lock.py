"""One run at a time."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from mixdtp_jax.training.run_lock import only_run


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
  workdir = tmp_path / 'run'
  with only_run(workdir):
    with (
      pytest.raises(
        RuntimeError, match=f'in use by process {os.getpid()} on'
      ) as error,
      only_run(workdir),
    ):
      pass
    assert str(workdir) in str(error.value)
    with only_run(tmp_path / 'other'):
      pass
  with only_run(workdir):
    pass


def test_a_killed_run_holds_nothing(tmp_path):
  program = """
    import os, signal, sys
    from mixdtp_jax.training.run_lock import only_run
    with only_run(sys.argv[1]):
      os.kill(os.getpid(), signal.SIGKILL)
  """
  result = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program), str(tmp_path)],
    cwd=pathlib.Path(__file__).parents[2],
    timeout=120,
  )
  assert result.returncode == -9
  with only_run(tmp_path):
    pass


def test_an_error_inside_frees_it(tmp_path):
  with pytest.raises(KeyError), only_run(tmp_path):
    raise KeyError
  with only_run(tmp_path):
    pass
