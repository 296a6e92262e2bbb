"""A model of the time of a step, from its numbers and its target's figures."""

from typing import NamedTuple

from mixdtp_jax.tools.plan.step import StepPlan
from mixdtp_jax.tools.plan.targets import Target


class Times(NamedTuple):
  """Seconds of a step.

  Attributes:
    products: its operations at the part of the peak rate that is reached.
    memory: its traffic at the full bandwidth; None if unknown.
    exchange: what each device sends on a ring, at the full rate of two ports;
      None if unknown.
  """

  products: float
  memory: float | None
  exchange: float | None

  @property
  def step(self) -> float:
    """The longer of the first two, and the exchange as if nothing hid it."""
    return max(self.products, self.memory or 0) + (self.exchange or 0)


def times(found: StepPlan, target: Target, utilisation: float) -> Times:
  """Estimates a step; if it did not compile, by its products alone.

  Args:
    found: the step.
    target: the devices.
    utilisation: part of the peak rate that products reach.
  """
  memory = exchange = None
  if target.bandwidth is not None and found.traffic is not None:
    memory = found.traffic / target.bandwidth
  if target.ring is not None:
    exchange = found.sent_bytes / target.ring
  return Times(found.flops / (target.peak * utilisation), memory, exchange)


def most_utilisation(found: StepPlan, target: Target) -> float:
  """Returns the part of the peak rate that the bandwidth allows."""
  products, memory = found.flops / target.peak, found.traffic / target.bandwidth
  return min(products / memory, 1.0)


def most_exchange(found: StepPlan, target: Target) -> float | None:
  """Returns the seconds of the exchange on any number of devices; None if
  unknown.

  Of what is summed, a ring of n devices sends 2 (n - 1) / n: never twice.
  """
  if {collective.kind for collective in found.collectives} != {'all-reduce'}:
    return None
  summed = sum(c.bytes * c.times for c in found.collectives)
  return 2 * summed / target.ring
