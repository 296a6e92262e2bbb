"""Halving and doubling images, against PyTorch."""

import numpy as np
import pytest

from mixdtp_jax.ops import resizing
from tests.helpers.same import random


def to_torch(x):
  import torch

  return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


def from_torch(x):
  return x.numpy().transpose(0, 2, 3, 1)


@pytest.mark.torch
def test_pixel_shuffles_have_pytorch_channel_order():
  import torch

  x = random(0, 2, 4, 6, 8)
  down = from_torch(torch.pixel_unshuffle(to_torch(x), 2))
  np.testing.assert_array_equal(resizing.pixel_unshuffle(x), down)
  up = from_torch(torch.pixel_shuffle(to_torch(x), 2))
  np.testing.assert_array_equal(resizing.pixel_shuffle(x), up)
  np.testing.assert_array_equal(
    resizing.pixel_shuffle(resizing.pixel_unshuffle(x)), x
  )


@pytest.mark.torch
@pytest.mark.parametrize(
  ('function', 'factor'),
  [(resizing.bilinear_half, 0.5), (resizing.bilinear_double, 2)],
)
def test_bilinear_is_pytorch_interpolate(function, factor):
  import torch

  for shape in ((2, 8, 6, 3), (1, 2, 4, 5)):
    x = random(0, *shape)
    expected = torch.nn.functional.interpolate(
      to_torch(x), scale_factor=factor, mode='bilinear', align_corners=False
    )
    np.testing.assert_allclose(function(x), from_torch(expected), atol=1e-6)
