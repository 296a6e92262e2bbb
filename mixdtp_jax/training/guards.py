"""Guards that end a run which no longer learns."""

import math

import orbax.checkpoint as ocp

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.recipe.knobs import Recipe

_ZERO_SSIM = 1e-3  # an SSIM of the final images below it counts as 0


class CollapseError(ArithmeticError):
  """The SSIM of the restored images stays at 0."""


class Guards:
  """The guards of a run.

  The -SSIM loss can collapse: if images are far off, such as all black, SSIM is
  0 in every window and has no gradient, and the run never recovers.
  """

  def __init__(self, config: Recipe, manager: ocp.CheckpointManager):
    """Starts before the first update."""
    self._manager = manager
    # Other losses have a gradient where SSIM is 0.
    guarded = config.loss.final == 'negative_ssim'
    self._patience = config.collapse_patience if guarded else 0
    self._collapsed: int | None = None  # first of the updates with SSIM 0

  def check(self, step: int, values: dict[str, float]) -> None:
    """Checks the scalars of an update.

    FloatingPointError if one is not finite; no state after this update was
    saved. CollapseError if the last collapse_patience updates had an SSIM of 0.
    """
    if bad := [f'{k} = {v}' for k, v in values.items() if not math.isfinite(v)]:
      saving.wait(self._manager)
      raise saving.not_finite(self._manager, step, ', '.join(bad))
    if not self._patience or abs(values['loss_final']) > _ZERO_SSIM:
      self._collapsed = None
      return
    if self._collapsed is None:
      self._collapsed = step
    if step - self._collapsed + 1 < self._patience:
      return
    saving.wait(self._manager)
    # An update reports the SSIM of the parameters that it started from.
    last_good = saving.last_good(self._manager, before=self._collapsed - 1)
    raise CollapseError(
      f'update {step}: the SSIM of the restored images has been 0 since update '
      f'{self._collapsed}, and the -SSIM loss has no gradient there; '
      f'{last_good}. Start again from there with a smaller '
      'schedule.learning_rate and more schedule.warmup_steps, with '
      "optimizer.clip_norm = 1.0, and with loss.final = 'ssim_l1', whose "
      'gradient does not vanish.'
    )
