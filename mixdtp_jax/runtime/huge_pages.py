"""Memory in huge pages, where Linux gives them to who asks.

A training step takes gigabytes from the system and gives them back. In pages of
4 KiB each costs a page fault: with 2.8 GiB of temporaries, on two cores, the
step of the paper's network took 7 s so and 3.4 s in pages of 2 MiB.
"""

import os
import pathlib
import sys

_SETTING = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
_TUNABLE = 'glibc.malloc.hugetlb'


def use_huge_pages() -> None:
  """Starts this program anew where that is how to have huge pages.

  The C library (glibc 2.35 or later) asks for them if an environment variable
  says so when it is loaded. To be called before anything is imported that takes
  time. A setting of the user's stays as it is.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if _TUNABLE in tunables or not _given_to_who_asks():
    return
  parts = [*filter(None, [tunables]), f'{_TUNABLE}=1']
  os.environ['GLIBC_TUNABLES'] = ':'.join(parts)
  os.execv(sys.executable, sys.orig_argv)


def _given_to_who_asks() -> bool:
  try:
    return '[madvise]' in _SETTING.read_text()
  except OSError:  # no Linux, or one without huge pages
    return False
