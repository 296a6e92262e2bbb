"""An ordered map in threads."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

_MOST = 16  # threads; each may have a whole batch in memory


def map_in_threads(
  function: Callable[[Any], Any], items: Iterable[Any], most: int = _MOST
) -> Iterator[Any]:
  """Maps in threads, a few items ahead; results and errors come in order.

  Args:
    function: called in as many threads as there are cores, at most `most`.
    items: the items, possibly endless; read in the caller's thread.
    most: threads; twice as many items are in memory.
  """
  workers = min(os.cpu_count() or 1, most)
  running: collections.deque[futures.Future] = collections.deque()
  with futures.ThreadPoolExecutor(workers) as pool:
    for item in items:
      running.append(pool.submit(function, item))
      # Twice the threads, so that no thread waits for work.
      if len(running) == 2 * workers:
        yield running.popleft().result()
    while running:
      yield running.popleft().result()
