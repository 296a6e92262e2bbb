"""The networks in PyTorch, to compare with and to train side by side.

Their modules have the published names, so that they load what
`weights.state_dict.to_torch` returns. Tensors are NCHW.
"""

from collections import OrderedDict

from mixdtp_jax.models import config
from mixdtp_jax.models.refinement import RESIDUAL_BLOCKS
from mixdtp_jax.runtime.console import pip_install

try:
  import torch
  import torch.nn.functional as F
  from torch import nn
except ImportError:
  raise ImportError(
    'the network in PyTorch needs PyTorch: ' + pip_install('torch')
  ) from None


def _conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
  return nn.Conv2d(inputs, outputs, 1, bias=False)


def _conv3x3(inputs: int, outputs: int, **kwargs) -> nn.Conv2d:
  return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **kwargs)


def _conv_relu(inputs: int, outputs: int) -> list[nn.Module]:
  return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]


def _resize(*modules: nn.Module) -> nn.Module:
  return nn.Sequential(OrderedDict(body=nn.Sequential(*modules)))


class _DetailDilation(nn.Module):
  """Embeds an image less its detail: (B, 3, H, W) to (B, width, H, W)."""

  def __init__(self, width):
    super().__init__()
    self.transform1 = nn.Sequential(_conv3x3(3, 3), nn.ReLU())
    self.transform2 = _conv3x3(3, width)

  def forward(self, image):
    half = _bilinear(self.transform1(image), 0.5)
    detail = half - _bilinear(_bilinear(half, 0.5), 2.0)
    return self.transform2(image) - self.transform2(_bilinear(detail, 2.0))


def _bilinear(x, factor):
  return F.interpolate(x, None, factor, 'bilinear', align_corners=False)


class _LayerNorm(nn.Module):
  """Layer norm over the channels of each pixel."""

  def __init__(self, width):
    super().__init__()
    self.body = nn.LayerNorm(width, eps=1e-5)

  def forward(self, x):
    return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ChannelAttention(nn.Module):
  """Multi-head attention between channels."""

  def __init__(self, width, heads):
    super().__init__()
    self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
    self.qkv = _conv1x1(width, 3 * width)
    self.qkv_dwconv = _conv3x3(3 * width, 3 * width, groups=3 * width)
    self.project_out = _conv1x1(width, width)

  def forward(self, x):
    heads = len(self.temperature)
    qkv = self.qkv_dwconv(self.qkv(x))
    # Each (B, heads, C/heads, H*W).
    q, k, v = qkv.unflatten(1, (3, heads, -1)).flatten(4).unbind(1)
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
    return self.project_out((attention @ v).reshape(x.shape))


class _FeedForward(nn.Module):
  """One half of the hidden channels, gated by the gelu of the other."""

  def __init__(self, width, expansion):
    super().__init__()
    hidden = int(width * expansion)
    self.project_in = _conv1x1(width, 2 * hidden)
    self.dwconv = _conv3x3(2 * hidden, 2 * hidden, groups=2 * hidden)
    self.project_out = _conv1x1(hidden, width)

  def forward(self, x):
    a, b = self.dwconv(self.project_in(x)).chunk(2, dim=1)
    return self.project_out(F.gelu(a) * b)


class _TransformerBlock(nn.Module):
  """Attention and feed-forward, each after a layer norm, with residuals."""

  def __init__(self, width, heads, expansion):
    super().__init__()
    self.norm1 = _LayerNorm(width)
    self.attn = _ChannelAttention(width, heads)
    self.norm2 = _LayerNorm(width)
    self.ffn = _FeedForward(width, expansion)

  def forward(self, x):
    x = x + self.attn(self.norm1(x))
    return x + self.ffn(self.norm2(x))


def _stage(
  cfg: config.UNetConfig, level: int, blocks: int, width: int | None = None
) -> nn.Sequential:
  width, heads = width or cfg.level_width(level), cfg.heads[level]
  return nn.Sequential(
    *(_TransformerBlock(width, heads, cfg.ffn_expansion) for _ in range(blocks))
  )


def _add_resizing(network: nn.Module, cfg: config.UNetConfig) -> None:
  for i in (1, 2, 3):
    width, below = cfg.level_width(i - 1), cfg.level_width(i)
    down = _resize(_conv3x3(width, width // 2), nn.PixelUnshuffle(2))
    up = _resize(_conv3x3(below, 2 * below), nn.PixelShuffle(2))
    network.add_module(f'down{i}_{i + 1}', down)
    network.add_module(f'up{i + 1}_{i}', up)


def _add_reducing(
  network: nn.Module, cfg: config.UNetConfig, levels: tuple[int, ...]
) -> None:
  for level in levels:
    width = cfg.level_width(level - 1)
    conv = _conv1x1(2 * width, width)
    network.add_module(f'reduce_chan_level{level}', conv)


def _plain_embedding(width: int) -> nn.Sequential:
  return nn.Sequential(OrderedDict(proj=_conv3x3(3, width)))


class _Network(nn.Module):
  """A network that restores images."""

  def __init__(self, cfg: config.AnyConfig):
    super().__init__()
    self.cfg = cfg

  def _restore(self, rainy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    raise NotImplementedError

  def forward(self, rainy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Restores rainy images (B, 3, H, W) float in [0, 1].

    Returns (final, coarse) of the same shape and dtype, not clamped; one tensor
    twice if the network has no separate refinement. ValueError if the shape
    does not fit.
    """
    shape = tuple(rainy.shape)
    misfits = any(side % self.cfg.multiple for side in shape[2:])
    if len(shape) != 4 or shape[1] != 3 or misfits:
      raise ValueError(
        f'images of shape {shape}: needs (B, 3, H, W), H and W multiples of '
        f'{self.cfg.multiple}; pad others and crop the result'
      )
    return self._restore(rainy)


class TorchPReNet(_Network):
  """The counterpart of `models.prenet.PReNet`.

  MixDTPNet has the recurrent part under the same names.
  """

  cfg: config.PReNetConfig | config.MixDTPConfig

  def __init__(self, cfg: config.PReNetConfig | config.MixDTPConfig):
    super().__init__(cfg)
    r = cfg.recurrent_width
    self.conv0 = nn.Sequential(*_conv_relu(6, r))
    for n in range(1, RESIDUAL_BLOCKS + 1):
      block = nn.Sequential(*_conv_relu(r, r), *_conv_relu(r, r))
      self.add_module(f'res_conv{n}', block)
    self.conv_i, self.conv_f, self.conv_g, self.conv_o = (
      nn.Sequential(nn.Conv2d(2 * r, r, 3, padding=1), activation())
      for activation in (nn.Sigmoid, nn.Sigmoid, nn.Tanh, nn.Sigmoid)
    )
    self.conv = nn.Sequential(nn.Conv2d(r, 3, 3, padding=1))

  def _restore(self, rainy):
    final = self._refine(rainy, rainy)
    return final, final

  def _refine(self, rainy, image):
    size = (len(rainy), self.cfg.recurrent_width, *rainy.shape[2:])
    h = c = rainy.new_zeros(size)
    for _ in range(self.cfg.steps):
      x = self.conv0(torch.cat([rainy, image], dim=1))
      x = torch.cat([x, h], dim=1)
      c = self.conv_f(x) * c + self.conv_i(x) * self.conv_g(x)
      x = h = self.conv_o(x) * torch.tanh(c)
      for n in range(1, RESIDUAL_BLOCKS + 1):
        x = F.relu(self.get_submodule(f'res_conv{n}')(x) + x)
      image = self.conv(x) + rainy
    return image


class TorchMixDTP(TorchPReNet):
  """The counterpart of `models.mixdtp.MixDTP`.

  The fields of `models.config.EXECUTION` have no meaning here. A new network
  has PyTorch's initial weights, from which the published training started too.
  """

  cfg: config.MixDTPConfig

  def __init__(self, cfg: config.MixDTPConfig):
    if cfg.steps:
      super().__init__(cfg)
    else:
      _Network.__init__(self, cfg)
    dilated = cfg.detail_dilation
    embedding = _DetailDilation if dilated else _plain_embedding
    self.patch_embed = embedding(cfg.width)
    _add_resizing(self, cfg)
    _add_reducing(self, cfg, (1, 2, 3))
    self.conv1_2, self.conv2_3, self.conv3_4, self.conv4_L = (
      _stage(cfg, level, n) for level, n in enumerate(cfg.encoder_blocks)
    )
    self.conv2_1_HSI, self.conv3_2_HSI, self.conv4_3_HSI = (
      _stage(cfg, level, n) for level, n in enumerate(cfg.decoder_blocks)
    )
    self.outc = _stage(cfg, 0, cfg.refinement_blocks)
    self.conv_final = _conv3x3(cfg.width, 3)

  def _restore(self, rainy):
    coarse = self._coarse(rainy)
    return (self._refine(rainy, coarse) if self.cfg.steps else coarse), coarse

  def _coarse(self, rainy):
    part = self.get_submodule
    c1 = self.conv1_2(self.patch_embed(rainy))
    in2 = part('down1_2')(c1)
    c2 = self.conv2_3(in2)
    in3 = part('down2_3')(c2)
    c3 = self.conv3_4(in3)
    in4 = part('down3_4')(c3)
    y = self.conv4_L(in4)
    y = self._decode(3, self.conv4_3_HSI, y, c3, in4)
    y = self._decode(2, self.conv3_2_HSI, y, c2, in3)
    y = self._decode(1, self.conv2_1_HSI, y, c1, in2)
    return self.conv_final(self.outc(y))

  def _decode(self, level, stage, below, skip, coupled):
    up = self.get_submodule(f'up{level + 1}_{level}')
    reduce = self.get_submodule(f'reduce_chan_level{level}')
    y = stage(reduce(torch.cat([up(below), skip], dim=1)))
    return y + up(coupled) if self.cfg.coupling else y


class TorchRestormer(_Network):
  """The counterpart of `models.restormer.Restormer`."""

  def __init__(self, cfg: config.RestormerConfig):
    super().__init__(cfg)
    self.patch_embed = _plain_embedding(cfg.width)
    _add_resizing(self, cfg)
    _add_reducing(self, cfg, (2, 3))
    *levels, latent = enumerate(cfg.encoder_blocks)
    for level, blocks in levels:
      self.add_module(f'encoder_level{level + 1}', _stage(cfg, level, blocks))
    self.latent = _stage(cfg, *latent)
    doubled = 2 * cfg.width  # the finest level keeps all the channels
    for level, blocks in enumerate(cfg.decoder_blocks):
      stage = _stage(cfg, level, blocks, None if level else doubled)
      self.add_module(f'decoder_level{level + 1}', stage)
    self.refinement = _stage(cfg, 0, cfg.refinement_blocks, doubled)
    self.output = _conv3x3(doubled, 3)

  def _restore(self, rainy):
    part = self.get_submodule
    e1 = part('encoder_level1')(self.patch_embed(rainy))
    e2 = part('encoder_level2')(part('down1_2')(e1))
    e3 = part('encoder_level3')(part('down2_3')(e2))
    y = part('up4_3')(self.latent(part('down3_4')(e3)))
    y = part('reduce_chan_level3')(torch.cat([y, e3], dim=1))
    y = part('up3_2')(part('decoder_level3')(y))
    y = part('reduce_chan_level2')(torch.cat([y, e2], dim=1))
    y = part('up2_1')(part('decoder_level2')(y))
    y = part('decoder_level1')(torch.cat([y, e1], dim=1))
    final = self.output(self.refinement(y)) + rainy
    return final, final


_NETWORKS = {
  config.MixDTPConfig: TorchMixDTP,
  config.PReNetConfig: TorchPReNet,
  config.RestormerConfig: TorchRestormer,
}


def make_torch_network(cfg: config.AnyConfig) -> nn.Module:
  """Returns a network in PyTorch, with PyTorch's initial weights."""
  return _NETWORKS[type(cfg)](cfg)
