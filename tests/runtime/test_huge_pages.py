"""A program that restarts itself, once."""

import os
import subprocess
import sys

import pytest

from mixdtp_jax.runtime import huge_pages

_TUNABLE = huge_pages._TUNABLE
_PROGRAM = """
import os, sys
from mixdtp_jax.runtime import huge_pages
huge_pages._granted_on_request = lambda: {given}
print('started')
sys.stdout.flush()
huge_pages.use_huge_pages()
print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1:], os.getpid())
"""


@pytest.mark.parametrize(
  ('given', 'before', 'after', 'starts'),
  [
    (True, None, f'{_TUNABLE}=1', 2),
    (True, 'glibc.malloc.check=0', f'glibc.malloc.check=0:{_TUNABLE}=1', 2),
    (True, f'{_TUNABLE}=0', f'{_TUNABLE}=0', 1),
    (False, None, None, 1),
  ],
)
def test_restarts_where_huge_pages_must_be_requested(
  given, before, after, starts
):
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
  if before is not None:
    environment['GLIBC_TUNABLES'] = before
  command = [sys.executable, '-c', _PROGRAM.format(given=given), 'a b', '--c']
  process = subprocess.Popen(
    command, env=environment, stdout=subprocess.PIPE, text=True
  )
  output, _ = process.communicate()
  assert process.returncode == 0
  expected = f"{after} ['a b', '--c'] {process.pid}"
  assert output.splitlines() == ['started'] * starts + [expected]


def test_reads_what_the_system_says(monkeypatch, tmp_path):
  setting = tmp_path / 'enabled'
  monkeypatch.setattr(huge_pages, '_SETTING', setting)
  assert not huge_pages._granted_on_request()
  for text, given in (
    ('always [madvise] never\n', True),
    ('[always] madvise never\n', False),
    ('always madvise [never]\n', False),
  ):
    setting.write_text(text)
    assert huge_pages._granted_on_request() == given
