"""Transformer blocks with channel attention (figure C).

The design is Restormer's (arXiv:2111.09881): attention between channels, whose
cost is linear in the number of pixels, and a gated feed-forward.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixdtp_jax.models.config import UNetConfig
from mixdtp_jax.models.layers import Kernel, LayerNorm
from mixdtp_jax.ops import dense
from mixdtp_jax.ops.depthwise import depthwise_conv3x3, rounded_on_gpu
from mixdtp_jax.ops.feed_forward import feed_forward
from mixdtp_jax.ops.fused_feed_forward import residual_feed_forward


class ChannelAttention(nn.Module):
  """Multi-head attention between channels: (B, H, W, C) to (B, H, W, C)."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Mixes the channels of each head by the similarity of their images."""
    b, _, _, c = x.shape
    temperature = self.param(
      'temperature', nn.initializers.ones, (self.heads,), jnp.float32
    )
    # Three products of C channels each: XLA would copy slices of one of 3 C.
    pointwise = Kernel((c, 3 * c), name='qkv')()
    depthwise = Kernel((3, 3, 1, 3 * c), name='qkv_depthwise')()
    q, k, v = (
      rounded_on_gpu(depthwise_conv3x3(dense.conv1x1(x, p), d))
      for p, d in zip(
        jnp.split(pointwise, 3, -1), jnp.split(depthwise, 3, -1), strict=True
      )
    )
    similarity = _within_heads(dense.gram(q, k), self.heads)
    # q and k are normalised over all pixels. Scaling their small product gives
    # the same as scaling the images, and is cheaper.
    similarity *= _inverse_norm(q).reshape(b, self.heads, -1, 1)
    similarity *= _inverse_norm(k).reshape(b, self.heads, 1, -1)
    attention = nn.softmax(similarity * temperature[:, None, None])
    # Mixing and projecting the channels are two small matrices: their product
    # is applied to every pixel.
    project_out = Kernel((c, c), name='project_out')()
    mix = jnp.einsum(
      'bhcd,hce->bhde', attention, project_out.reshape(self.heads, -1, c)
    ).reshape(b, c, c)
    return dense.mix_channels(v, mix)


def _within_heads(gram, heads):
  """Takes the diagonal blocks: (B, C, C) to (B, heads, C/heads, C/heads).

  One whole product of C channels costs less than products per head, which
  would need a copy of the images with the heads first.
  """
  b, c, _ = gram.shape
  blocks = gram.reshape(b, heads, c // heads, heads, c // heads)
  return jnp.moveaxis(jnp.diagonal(blocks, axis1=1, axis2=3), -1, 1)


def _inverse_norm(x):
  """Computes 1 / max(norm over pixels, 1e-12): (B, H, W, C) to (B, C).

  The maximum is of the square, so that a black image has a finite gradient.
  """
  return jax.lax.rsqrt(jnp.maximum(dense.sum_of_squares(x), 1e-24))


class FeedForward(nn.Module):
  """A gated feed-forward: (B, H, W, C) to (B, H, W, C)."""

  expansion: float

  def __call__(self, x: jax.Array) -> jax.Array:
    """Multiplies one half of the hidden channels by the gelu of the other."""
    return feed_forward(x, *self.kernels(x.shape[-1]))

  @nn.compact
  def kernels(self, channels: int) -> tuple[jax.Array, ...]:
    """Returns the three kernels that `feed_forward` takes."""
    hidden = int(channels * self.expansion)
    return (
      Kernel((channels, 2 * hidden), name='project_in')(),
      Kernel((3, 3, 1, 2 * hidden), name='depthwise')(),
      Kernel((hidden, channels), name='project_out')(),
    )


class TransformerBlock(nn.Module):
  """Attention and feed-forward, each after a layer norm, with residuals."""

  cfg: UNetConfig
  level: int

  @nn.compact
  def __call__(self, x: jax.Array, _) -> tuple[jax.Array, None]:
    """Maps (B, H, W, C) to the same and None, as `flax.linen.scan` needs."""
    heads = self.cfg.heads[self.level]
    x += ChannelAttention(heads, name='attention')(LayerNorm(name='norm1')(x))
    norm = LayerNorm(name='norm2')
    feed_forward = FeedForward(self.cfg.ffn_expansion, name='feed_forward')
    if self.cfg.fused_feed_forward:
      c = x.shape[-1]
      weights = *norm.weights(c), *feed_forward.kernels(c)
      return residual_feed_forward(x, *weights), None
    return x + feed_forward(norm(x)), None


class TransformerStage(nn.Module):
  """A sequence of transformer blocks: (B, H, W, C) to (B, H, W, C).

  The blocks are a loop, which compiles many times faster than separate blocks.
  Their parameters are stacked along a first axis.
  """

  cfg: UNetConfig
  level: int
  blocks: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies the blocks."""
    block, remat = TransformerBlock, self.cfg.remat
    if remat != 'none':
      # XLA does not merge a loop's body with its gradient's anyway.
      block = nn.remat(block, prevent_cse=False)
    stacked = nn.scan(
      block,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=self.blocks,
      unroll=min(self.cfg.scan_unroll, self.blocks),
    )
    if remat == 'full':
      stacked = nn.remat(stacked)
    return stacked(self.cfg, self.level, name='blocks')(x, None)[0]
