"""Tests of atomic writing."""

import errno
import pathlib

import pytest

from mixdtp_jax.runtime.files import replacing


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
