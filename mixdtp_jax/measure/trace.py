"""Which operations of a compiled program ran when, by jax.profiler's trace.

XLA's CPU runtime and NVIDIA's CUPTI name the instruction of the program with
each event. Nothing but JAX is needed to read the trace.
"""

import collections
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import jax

_RUN = 'traced run'  # the event around each run, on the host's clock


class Span(NamedTuple):
  """The time of one operation, in seconds on the clock of the trace."""

  name: str  # of the program's instruction, or of a kernel that names none
  start: float
  end: float


class Run(NamedTuple):
  """One traced run."""

  seconds: float  # from the call until the device was done
  spans: list[Span]  # within that time; they may overlap


def record(run: Callable[[], Any], repeats: int) -> list[Run]:
  """Traces runs of a program on the first device.

  `run` returns when the device is done.
  """
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0  # tracing Python's calls would slow the run
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder, profiler_options=options):
      for _ in range(repeats):
        with jax.profiler.TraceAnnotation(_RUN):
          run()
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    data = jax.profiler.ProfileData.from_file(str(path))
    planes = {plane.name: plane for plane in data.planes}
    host = list(_events(planes['/host:CPU']))
    if '/device:GPU:0' in planes:
      spans = list(_kernels(planes['/device:GPU:0']))
    else:
      spans = list(_cpu_operations(host))
  runs = [(e.start_ns / 1e9, e.end_ns / 1e9) for e in host if e.name == _RUN]
  found = []
  for start, end in sorted(runs):
    within = [
      Span(span.name, max(span.start, start), min(span.end, end))
      for span in spans
      if span.start < end and span.end > start
    ]
    found.append(Run(end - start, within))
  return found


def _events(plane: Any, lines: str = '') -> Iterator[Any]:
  for line in plane.lines:
    if line.name.startswith(lines):
      yield from line.events


def _kernels(plane: Any) -> Iterator[Span]:
  # Other lines of a GPU summarise what its streams did.
  for event in _events(plane, 'Stream'):
    name = dict(event.stats).get('hlo_op', event.name)
    yield Span(name, event.start_ns / 1e9, event.end_ns / 1e9)


def _cpu_operations(events: Iterable[Any]) -> Iterator[Span]:
  """Yields the operations that XLA's threads ran.

  A thread may hand an operation over; an event of its number tells the end.
  """
  ends: dict[Any, float] = {}
  started = []
  for event in events:
    stats = dict(event.stats)
    if event.name.startswith('end: '):
      ends[stats.get('_c')] = event.start_ns
    elif 'hlo_op' in stats:
      started.append((event, stats))
  for event, stats in started:
    end = max(event.end_ns, ends.get(stats.get('_p'), 0))
    yield Span(stats['hlo_op'], event.start_ns / 1e9, end / 1e9)


def shares(
  spans: Iterable[Span], waiting: Collection[str] = ()
) -> dict[str, float]:
  """Returns the seconds of each name among operations that may overlap.

  Of a time in which n operations run each gets 1/n, so the sum is the time in
  which at least one of them runs. Those that are `waiting`, such as loops, run
  others: they get only the time in which nothing else runs.
  """
  edges: list[tuple[float, int, str]] = []
  for name, start, end in spans:
    if start < end:
      edges += [(start, 1, name), (end, -1, name)]
  seconds: dict[str, float] = collections.defaultdict(float)
  running: collections.Counter[str] = collections.Counter()
  before = 0.0
  for time, change, name in sorted(edges):
    working = {n: k for n, k in running.items() if n not in waiting}
    working = working or dict(running)
    for other, count in working.items():
      seconds[other] += (time - before) * count / sum(working.values())
    before = time
    running[name] += change
    if not running[name]:
      del running[name]
  return dict(seconds)
