"""Training losses: of one image each, and their weighted sum of two.

Images are (B, H, W, 3) in [0, 1]; a loss is a scalar.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixdtp_jax.models.mixdtp import Outputs
from mixdtp_jax.ops import ssim
from mixdtp_jax.recipe import knobs


def negative_ssim(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Computes -SSIM, with zeros around the images; see `ops.ssim`.

  It is almost the same for a channel of opposite sign, so it needs another loss
  beside it: that of the coarse image, or l1.
  """
  return -ssim.ssim(restored, clean, padding='SAME').mean()


def ssim_as_published(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Computes +SSIM, which pushes the image AWAY from the clean one.

  The MixDTPNet repository trains its coarse image with this sign. It is here
  only to reproduce that recipe.
  """
  return -negative_ssim(restored, clean)


def mse(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Computes the mean squared error."""
  return jnp.square(restored - clean).mean()


def rmse(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Computes the mean of the images' sqrt(mean squared error + 10^-6).

  The root is that of each image, so that light rain counts for more than in the
  mean squared error.
  """
  error = jnp.square(restored - clean).mean(axis=(1, 2, 3))
  return jnp.sqrt(error + 1e-6).mean()


def l1(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Computes the mean absolute error."""
  return jnp.abs(restored - clean).mean()


def charbonnier(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Computes the mean of sqrt(error^2 + 0.001^2) (arXiv:1710.01992)."""
  return jnp.sqrt(jnp.square(restored - clean) + 1e-6).mean()


def ssim_l1(restored: jax.Array, clean: jax.Array) -> jax.Array:
  """Computes -0.84 SSIM + 0.16 l1, weighted as in arXiv:1511.08861.

  The paper takes SSIM on several scales. The l1 part pulls images back from
  where SSIM is 0 and has no gradient.
  """
  return 0.84 * negative_ssim(restored, clean) + 0.16 * l1(restored, clean)


LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  'negative_ssim': negative_ssim,
  'ssim_as_published': ssim_as_published,
  'mse': mse,
  'rmse': rmse,
  'l1': l1,
  'charbonnier': charbonnier,
  'ssim_l1': ssim_l1,
}


def make_loss(
  options: knobs.Loss,
) -> Callable[[Outputs, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
  """Makes the loss final(image) + coarse_weight * coarse(coarse image).

  It takes outputs and clean images, and returns the scalar loss and its terms
  before weighting, all float32. The default, -SSIM + 0.5 MSE, is the paper's.
  """
  final, coarse = LOSSES[options.final], LOSSES[options.coarse]

  def loss(outputs, clean):
    terms = {
      'final': final(outputs.final, clean),
      'coarse': coarse(outputs.coarse, clean),
    }
    return terms['final'] + options.coarse_weight * terms['coarse'], terms

  return loss
