"""Losses, optimizer and one update in PyTorch, as JAX's training has them.

The same recipe gives the same training, so that two runs differ only in the
framework. Images are NCHW float32 in [0, 1].
"""

from collections.abc import Callable

from mixdtp_jax.measure.timed import Batch
from mixdtp_jax.recipe.knobs import Optimizer, Recipe
from mixdtp_jax.torch_reference import inference
from mixdtp_jax.torch_reference.inference import VARIANTS, Variant
from mixdtp_jax.torch_reference.network import torch

F = torch.nn.functional

_MARGIN = 5  # pixels on each side of a window of 11
_SIGMA = 1.5

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
  """Returns the mean structural similarity of images (B, C, H, W) in [0, 1].

  Wang et al. 2004, equation 13: an 11x11 Gaussian window of sigma 1.5 with
  zeros around the image, K = (0.01, 0.03).
  """
  # The variances of x - level are those of x, with fewer digits lost to
  # rounding, as in `ops.ssim`. The border is black before it is subtracted.
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
  """Sums over Gaussian windows: (B, C, H, W) to (B, C, H - 10, W - 10)."""
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
  'rmse': lambda restored, clean: (
    (((restored - clean) ** 2).mean((1, 2, 3)) + 1e-6).sqrt().mean()
  ),
  'l1': F.l1_loss,
  'charbonnier': lambda restored, clean: (
    ((restored - clean) ** 2 + 1e-6).sqrt().mean()
  ),
  'ssim_l1': lambda restored, clean: (
    -0.84 * ssim(restored, clean) + 0.16 * F.l1_loss(restored, clean)
  ),
}


def check_optimizer(options: Optimizer) -> None:
  """Raises ValueError for Muon, which PyTorch has for matrices alone."""
  if options.name == 'muon':
    raise ValueError(
      'optimizer.name = muon: PyTorch has none for convolutions; compare with '
      '--config.optimizer.name=adam'
    )


class Trainer:
  """Training of a copy of a network: the counterpart of `training.step`.

  The recipe gives loss and optimizer, and to a tuned variant the dtype. Errors
  are those of `check_optimizer`.
  """

  def __init__(
    self,
    config: Recipe,
    network: torch.nn.Module,
    variant: Variant = VARIANTS['published'],
  ):
    self.network = variant.prepare(network)
    self._config, self._variant = config, variant
    self._device = inference.device_of(network)
    self._loss = variant.compile(self._loss_of)
    options = config.optimizer
    check_optimizer(options)
    self._optimizer = torch.optim.AdamW(  # without weight decay, it is Adam
      self.network.parameters(),
      betas=(options.b1, options.b2),
      eps=options.eps,
      weight_decay=options.weight_decay if options.name == 'adamw' else 0,
      fused=variant.tuned or None,
    )

  def place(self, batch: Batch) -> dict[str, torch.Tensor]:
    """Returns a batch (B, H, W, 3) on the network's device, channels first."""
    return {
      side: self._variant.arrange(inference.to_nchw(images, self._device))
      for side, images in batch.items()
    }

  def step(self, batch: dict[str, torch.Tensor], learning_rate: float) -> float:
    """Makes one update; returns the loss before it when all is done."""
    self._optimizer.param_groups[0]['lr'] = learning_rate
    loss = self._loss(batch['rainy'], batch['clean'])
    loss.backward()
    if most := self._config.optimizer.clip_norm:
      # clip_grad_norm_ would add 1e-6 to the norm; optax does not.
      parameters = self.network.parameters()
      gradients = [p.grad for p in parameters if p.grad is not None]
      norm = torch.nn.utils.get_total_norm(gradients)
      for gradient in gradients:
        gradient.mul_((most / norm).clamp(max=1))
    self._optimizer.step()
    # Their memory is free between updates, as in JAX.
    self._optimizer.zero_grad()
    inference.finish(self._device)
    return float(loss.detach())

  def _loss_of(self, rainy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    options, dtype = self._config.loss, self._config.model.dtype
    with self._variant.precision(rainy.device, dtype):
      outputs = self.network(rainy)
    # In bfloat16, the loss would be too coarse to train by.
    final, coarse = (image.to(clean.dtype) for image in outputs)
    of_coarse = LOSSES[options.coarse](coarse, clean)
    of_final = LOSSES[options.final](final, clean)
    return of_final + options.coarse_weight * of_coarse
