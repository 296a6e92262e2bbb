"""Huge pages for the memory of a process, where Linux grants them on request.

A training step takes gigabytes from the system and returns them. In pages of
4 KiB each page costs a fault: with 2.8 GiB of temporaries, on two cores, the
step of the paper's network took 7 s so, and 3.4 s in pages of 2 MiB.
"""

import os
import pathlib
import sys

_SETTING = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
_TUNABLE = 'glibc.malloc.hugetlb'


def use_huge_pages() -> None:
  """Restarts this program with huge pages, where it has to request them.

  The C library (glibc 2.35 or later) requests them if GLIBC_TUNABLES says so
  when it is loaded. A user's own setting stays. Call it before slow imports.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if _TUNABLE in tunables or not _granted_on_request():
    return
  parts = [*filter(None, [tunables]), f'{_TUNABLE}=1']
  os.environ['GLIBC_TUNABLES'] = ':'.join(parts)
  os.execv(sys.executable, sys.orig_argv)


def _granted_on_request() -> bool:
  try:
    return '[madvise]' in _SETTING.read_text()
  except OSError:  # no Linux, or one without huge pages
    return False
