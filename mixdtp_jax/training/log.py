"""What a run reports while it trains, and the checks that it still learns.

The -SSIM loss can collapse: once images are far off (all black, say), SSIM is
0 wherever one looks, its gradient with it, and the run never comes back.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from absl import logging
from clu import metric_writers

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.recipe.crop_schedule import images_before
from mixdtp_jax.runtime import console

_ZERO_SSIM = 1e-3  # an SSIM of the final images below it counts as 0


class CollapseError(ArithmeticError):
  """The SSIM of the restored images is 0, and stays so."""


class TrainingLog:
  """Writes the scalars of updates; stops a run that does not learn any more.

  The scalars of an update are read when the next one is under way, so that
  the devices never wait for the log.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    writer: metric_writers.MetricWriter,
    manager: ocp.CheckpointManager,
    *,
    start_step: int,
  ):
    """Starts a log.

    Args:
      config: gives log_every_steps, collapse_patience, num_train_steps, and
        what says the images of an update.
      writer: gets the scalars.
      manager: names the last good checkpoint in an error.
      start_step: updates that were made before this run.
    """
    self._config = config
    self._writer = writer
    self._manager = manager
    self._pending: tuple[int, dict[str, jax.Array], float] | None = None
    self._wait = 0.0  # seconds, for the batch of the update under way
    self._waits: list[float] = []  # of the updates since the last line
    self._timed_step = start_step
    self._collapsed: int | None = None  # first of the updates with SSIM 0
    # Set by the first update: compilation is no part of the speed.
    self._time: float | None = None

  def add(self, step: int, scalars: dict[str, jax.Array]) -> None:
    """Takes the scalars of update `step` and reports the one before.

    Raises:
      FloatingPointError, CollapseError: see `check`.
    """
    self.check()
    self._pending = step, scalars, self._wait

  def waiting_for(self, batches: Iterator[Any]) -> Iterator[Any]:
    """Passes batches on; how long each one took is in `data_wait_ms`.

    It is the time that the loop waits. The devices may still be busy with the
    update before, so it is an upper bound of the time that they wait.
    """
    start = time.monotonic()
    for batch in batches:
      self._wait = time.monotonic() - start
      yield batch
      start = time.monotonic()

  def check(self) -> None:
    """Waits for the update added last, and reports it.

    Raises:
      FloatingPointError: its loss or its gradient is not finite. No state
        after it has been saved.
      CollapseError: the last collapse_patience updates all had an SSIM of 0.
    """
    if self._pending is None:
      return
    step, scalars, wait = self._pending
    self._pending = None
    self._waits.append(wait)
    values = {name: float(v) for name, v in jax.device_get(scalars).items()}
    bad = {k: v for k, v in values.items() if not math.isfinite(v)}
    if bad:
      self._stop(step, bad)
    self._check_collapse(step, values)
    first = self._time is None
    if first:
      self._time, self._timed_step = time.monotonic(), step
    last = step == self._config.num_train_steps
    values |= self._speed(step)
    line = self._line(step, values)
    console.show(line)
    if first or last or step % self._config.log_every_steps == 0:
      self._writer.write_scalars(step, values)
      self._waits, self._time, self._timed_step = [], time.monotonic(), step
      if last or not console.is_live():
        logging.info(line)

  def _speed(self, step: int) -> dict[str, float]:
    """Returns the speed since the last line; nothing for the first update."""
    if step == self._timed_step:
      return {}
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

  def _stop(self, step: int, bad: dict[str, float]) -> None:
    saving.wait(self._manager)
    values = ', '.join(f'{name} = {value}' for name, value in bad.items())
    last_good = saving.last_good(self._manager)
    raise FloatingPointError(
      f'update {step}: {values}; {last_good}. Start again from there with a '
      'smaller schedule.learning_rate or with optimizer.clip_norm set.'
    )

  def _check_collapse(self, step: int, values: dict[str, float]) -> None:
    patience = self._config.collapse_patience
    if not patience or self._config.loss.final != 'negative_ssim':
      return
    if abs(values['loss_final']) > _ZERO_SSIM:
      self._collapsed = None
      return
    if self._collapsed is None:
      self._collapsed = step
    if step - self._collapsed + 1 < patience:
      return
    saving.wait(self._manager)
    # The SSIM of an update is that of the state before it.
    last_good = saving.last_good(self._manager, before=self._collapsed - 1)
    raise CollapseError(
      f'update {step}: the SSIM of the restored images has been 0 since update '
      f'{self._collapsed}, and the -SSIM loss has no gradient there; '
      f'{last_good}. Start again from there with a smaller '
      'schedule.learning_rate and more schedule.warmup_steps, with '
      "optimizer.clip_norm = 1.0, and with loss.final = 'ssim_l1', whose "
      'gradient does not vanish.'
    )

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Time spent inside does not count in the speed."""
    self.check()
    start = time.monotonic()
    yield
    if self._time is not None:
      self._time += time.monotonic() - start
