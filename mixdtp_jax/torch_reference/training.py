"""Losses, optimizer and one update in PyTorch: the recipe of JAX's training.

The same configuration gives the same recipe, so that what differs between two
trainings is the framework alone. Images are NCHW float32 in [0, 1].
"""

from collections.abc import Callable, Iterable

import ml_collections
import numpy as np

from mixdtp_jax.torch_reference import inference
from mixdtp_jax.torch_reference.forms import FORMS, Form
from mixdtp_jax.torch_reference.network import torch

F = torch.nn.functional

_MARGIN = 5  # pixels on each side of a window of 11
_SIGMA = 1.5

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
  """Structural similarity of images (B, C, H, W) in [0, 1], their mean.

  Wang et al. 2004, equation 13; an 11x11 Gaussian window of sigma 1.5 with
  zeros around the image, K = (0.01, 0.03).
  """
  # The variances of x - level are those of x, with fewer digits lost to
  # rounding (`metrics.ssim` does the same). The border is black before it.
  level_x, level_y = (
    image.mean((2, 3), keepdim=True).detach() for image in (x, y)
  )
  x, y = (
    F.pad(image, (_MARGIN,) * 4) - level
    for image, level in ((x, level_x), (y, level_y))
  )
  mean_x, mean_y = _blur(x), _blur(y)
  covariance = _blur(x * y) - mean_x * mean_y
  variances = _blur(x * x) - mean_x**2 + _blur(y * y) - mean_y**2
  mean_x, mean_y = mean_x + level_x, mean_y + level_y
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  return (luminance * (2 * covariance + c2) / (variances + c2)).mean()


def _blur(x: torch.Tensor) -> torch.Tensor:
  """Gaussian window sums (B, C, H, W) -> (B, C, H - 10, W - 10)."""
  offsets = torch.arange(-_MARGIN, _MARGIN + 1, device=x.device, dtype=x.dtype)
  taps = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
  taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
  x = F.conv2d(x, taps, groups=x.shape[1])
  return F.conv2d(x, taps.transpose(2, 3), groups=x.shape[1])


# The keys and meanings of `mixdtp_jax.recipe.losses.LOSSES`.
LOSSES: dict[str, Loss] = {
  'negative_ssim': lambda restored, clean: -ssim(restored, clean),
  'ssim_as_published': ssim,
  'mse': F.mse_loss,
  'l1': F.l1_loss,
  'charbonnier': lambda restored, clean: (
    ((restored - clean) ** 2 + 1e-6).sqrt().mean()
  ),
  'ssim_l1': lambda restored, clean: (
    -0.84 * ssim(restored, clean) + 0.16 * F.l1_loss(restored, clean)
  ),
}


def make_optimizer(
  config: ml_collections.ConfigDict,
  parameters: Iterable[torch.nn.Parameter],
  *,
  fused: bool | None = None,
) -> torch.optim.Optimizer:
  """Adam or AdamW as `config.optimizer` says, at a rate that is set later.

  `recipe.optimizer.make_optimizer` checks the same configuration. `fused`
  updates in one kernel; None leaves that to PyTorch.
  """
  knobs = config.optimizer
  settings = {'betas': (knobs.b1, knobs.b2), 'eps': knobs.eps, 'fused': fused}
  if knobs.name == 'adam':
    return torch.optim.Adam(parameters, **settings)
  return torch.optim.AdamW(
    parameters, weight_decay=knobs.weight_decay, **settings
  )


def make_train_step(
  config: ml_collections.ConfigDict,
  network: torch.nn.Module,
  form: Form = FORMS['published'],
) -> Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]:
  """One update of `network` in place, as `mixdtp_jax.training.loop.train_step`.

  Args:
    config: gives the loss and the optimizer, and to a tuned form the dtype.
    network: (rainy) -> (final, coarse).
    form: in which it is trained.

  Returns:
    step(rainy, clean, learning_rate) -> the loss before the update, a scalar.
  """
  knobs = config.loss
  parameters = list(network.parameters())
  optimizer = make_optimizer(config, parameters, fused=form.tuned or None)

  @form.compile
  def loss(rainy, clean):
    with form.precision(rainy.device, config.model.dtype):
      outputs = network(rainy)
    # Of bfloat16 images, the loss would be too coarse to train by.
    final, coarse = (image.to(clean.dtype) for image in outputs)
    total = LOSSES[knobs.final](final, clean)
    return total + knobs.coarse_weight * LOSSES[knobs.coarse](coarse, clean)

  def step(rainy, clean, learning_rate):
    optimizer.param_groups[0]['lr'] = learning_rate
    total = loss(rainy, clean)
    total.backward()
    if config.optimizer.clip_norm:
      _clip(parameters, config.optimizer.clip_norm)
    optimizer.step()
    optimizer.zero_grad()  # their memory is free between updates, as in JAX
    return total.detach()

  return step


def _clip(parameters: list[torch.nn.Parameter], most: float) -> None:
  """Scales the gradients to a global norm of `most`, if theirs is larger.

  torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm, optax does not.
  """
  gradients = [p.grad for p in parameters if p.grad is not None]
  norm = torch.nn.utils.get_total_norm(gradients)
  for gradient in gradients:
    gradient.mul_((most / norm).clamp(max=1))


class Trainer:
  """Training in PyTorch, of a copy of a network."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    network: torch.nn.Module,
    form: Form = FORMS['published'],
  ):
    """Starts before the first update.

    Args:
      config: the recipe.
      network: stays as it is.
      form: in which it is trained.
    """
    self.network = form.prepare(network)
    self._step = make_train_step(config, self.network, form)
    self._form = form
    self._device = inference.device_of(network)

  def place(self, batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The batch (B, H, W, 3) on the network's device, channels first."""
    return {
      side: self._form.place(inference.to_nchw(images, self._device))
      for side, images in batch.items()
    }

  def step(self, batch: dict[str, torch.Tensor], learning_rate: float) -> float:
    """One update; returns the loss before it, when all is done."""
    loss = self._step(batch['rainy'], batch['clean'], learning_rate)
    inference.finish(self._device)
    return float(loss)
