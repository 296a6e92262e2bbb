"""Work in threads, in order."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

_MOST = 16  # threads; each may have a whole batch in memory


def map_in_threads(
  function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
  """map(), a few items ahead: results come in order, and so do errors.

  Args:
    function: called from as many threads as there are cores, 16 at most.
    items: may be endless; is gone through in the caller's thread.
  """
  workers = min(os.cpu_count() or 1, _MOST)
  running = collections.deque()
  with futures.ThreadPoolExecutor(workers) as pool:
    for item in items:
      running.append(pool.submit(function, item))
      # As many again wait, so that no thread does.
      if len(running) == 2 * workers:
        yield running.popleft().result()
    while running:
      yield running.popleft().result()
