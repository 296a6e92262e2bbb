"""The log of a run: scalars for TensorBoard, and lines for people."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from clu import metric_writers

from mixdtp_jax.recipe.crop_schedule import images_before
from mixdtp_jax.recipe.knobs import Recipe
from mixdtp_jax.runtime import console
from mixdtp_jax.training.guards import Guards
from mixdtp_jax.training.metrics_file import MetricsFile


class JsonLines(metric_writers.MultiWriter):
  """A writer of scalars alone, to metrics.jsonl."""

  def __init__(self, workdir: str):
    """Opens the file at the first line."""
    super().__init__([])
    self._file = MetricsFile(workdir)

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Appends a line."""
    self._file.append(step, scalars)


class TrainingLog:
  """The log of a run, which also stops a run that no longer learns.

  It reads the scalars of an update while the next one is under way, so that
  devices never wait for the log.
  """

  def __init__(
    self,
    config: Recipe,
    writer: metric_writers.MetricWriter,
    manager: ocp.CheckpointManager,
  ):
    """Starts a log before the first update; see `Guards` for `manager`."""
    self._config = config
    self._writer = writer
    self._guards = Guards(config, manager)
    self._pending: tuple[int, dict[str, jax.Array], float] | None = None
    self._wait = 0.0  # seconds that the update under way waited for its batch
    self._waits: list[float] = []  # seconds, of the updates since the last line
    self._time, self._timed_step = 0.0, 0  # of the last line, if there is one

  def add(self, step: int, scalars: dict[str, jax.Array]) -> None:
    """Takes the scalars of an update, and reports the one before."""
    self.check()
    self._pending = step, scalars, self._wait

  def waiting_for(self, batches: Iterator[Any]) -> Iterator[Any]:
    """Yields from `batches`, and records how long each one blocked the loop.

    Devices wait less, because they may be busy with the previous update.
    """
    start = time.monotonic()
    for batch in batches:
      self._wait = time.monotonic() - start
      yield batch
      start = time.monotonic()

  def check(self) -> None:
    """Waits for the update added last, and reports it; see `Guards.check`."""
    if self._pending is None:
      return
    step, scalars, wait = self._pending
    self._pending = None
    self._waits.append(wait)
    values = {name: float(v) for name, v in jax.device_get(scalars).items()}
    self._guards.check(step, values)
    first = not self._timed_step
    last = step == self._config.num_train_steps
    if not first:  # which was compiled
      values |= self._speed(step)
    line = self._line(step, values)
    console.show(line)
    if first or last or step % self._config.log_every_steps == 0:
      self._writer.write_scalars(step, values)
      self._waits, self._time, self._timed_step = [], time.monotonic(), step
      if last or not console.is_live():
        logging.info(line)

  def _speed(self, step: int) -> dict[str, float]:
    """Returns the speed since the last line."""
    seconds = time.monotonic() - self._time
    images = images_before(self._config, step) - images_before(
      self._config, self._timed_step
    )
    left = self._config.num_train_steps - step
    return {
      'images_per_second': images / seconds,
      'data_wait_ms': 1e3 * sum(self._waits) / len(self._waits),
      'minutes_left': left * seconds / (step - self._timed_step) / 60,
    }

  def _line(self, step: int, values: dict[str, float]) -> str:
    parts = [
      f'update {step} of {self._config.num_train_steps}',
      f'loss {values["loss"]:.4f}',
      f'PSNR {values["psnr"]:.2f} dB',
    ]
    if 'images_per_second' in values:
      left = console.duration(60 * values['minutes_left'])
      parts += [f'{values["images_per_second"]:.1f} images/s', f'{left} left']
    return '  '.join(parts)

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time of the body out of the speed."""
    self.check()
    start = time.monotonic()
    yield
    self._time += time.monotonic() - start
