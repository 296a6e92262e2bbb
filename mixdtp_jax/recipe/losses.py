"""Training losses: one number of an image pair, and their published sum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixdtp_jax.models.mixdtp import Outputs
from mixdtp_jax.ops import ssim


def negative_ssim(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """-SSIM with an 11x11 Gaussian, sigma 1.5, zero "same" padding."""
  return -ssim.ssim(restored, clean, padding='SAME').mean()


def ssim_as_published(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """+SSIM, which pushes the image AWAY from the clean one.

  The MixDTPNet repository trains its coarse image with this sign; it is here
  to reproduce that recipe, not to be chosen.
  """
  return -negative_ssim(restored, clean)


def mse(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Mean squared error."""
  return jnp.square(restored - clean).mean()


def l1(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Mean absolute error."""
  return jnp.abs(restored - clean).mean()


def charbonnier(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Mean of sqrt(error^2 + 0.001^2), a smooth l1 (arXiv:1710.01992)."""
  return jnp.sqrt(jnp.square(restored - clean) + 1e-6).mean()


def ssim_l1(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """-0.84 SSIM + 0.16 l1, weighted as in arXiv:1511.08861.

  There SSIM is of several scales. The l1 part pulls images back from where
  SSIM is 0 and has no gradient.
  """
  return 0.84 * negative_ssim(restored, clean) + 0.16 * l1(restored, clean)


Loss = Callable[[jax.Array, jax.Array], jax.Array]

LOSSES: dict[str, Loss] = {
  'negative_ssim': negative_ssim,
  'ssim_as_published': ssim_as_published,
  'mse': mse,
  'l1': l1,
  'charbonnier': charbonnier,
  'ssim_l1': ssim_l1,
}


def make_loss(
  final: str, coarse: str, coarse_weight: float
) -> Callable[[Outputs, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
  """loss(outputs, clean) = final(...) + coarse_weight * coarse(...).

  Args:
    final: key of LOSSES for the final image. The paper's is negative_ssim.
    coarse: key of LOSSES for the coarse image. The paper's is mse.
    coarse_weight: the paper's is 0.5.

  Returns:
    A function of outputs and clean images (B, H, W, 3) in [0, 1] that gives
    the scalar loss and its terms before weighting, all float32.

  Raises:
    ValueError: a name is unknown.
  """
  for knob, name in (('final', final), ('coarse', coarse)):
    if name not in LOSSES:
      raise ValueError(
        f'loss.{knob} = {name!r}: choose from {", ".join(LOSSES)}'
      )

  def loss(outputs, clean):
    terms = {
      'final': LOSSES[final](outputs.final, clean),
      'coarse': LOSSES[coarse](outputs.coarse, clean),
    }
    return terms['final'] + coarse_weight * terms['coarse'], terms

  return loss
