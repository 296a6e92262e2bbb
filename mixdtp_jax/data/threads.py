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

  There are as many threads as cores, at most `most`, and twice as many items in
  memory. `items`, possibly endless, are read in the caller's thread.
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
