"""Flicker of a video: how much a frame differs from the one before it."""

import numpy as np
from skimage.registration import optical_flow_ilk
from skimage.transform import warp

_SIDE = 256  # of the middle of a frame, which is measured
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def warping_error(before: np.ndarray, frame: np.ndarray) -> float:
  """Returns the mean difference of two frames along their optical flow.

  This is the warping error of Lai et al. (Learning Blind Video Temporal
  Consistency, ECCV 2018) with absolute differences, in the middle 256x256
  pixels. Pixels that only one of the frames shows are left out.

  Args:
    before: (H, W, C) uint8 or uint16, with at least three channels.
    frame: the next one.

  Returns:
    The error in [0, 1]; NaN if no pixel is seen in both.
  """
  first, second = _middle(before), _middle(frame)
  grays = first @ _LUMA, second @ _LUMA
  # For a pixel of the second frame its place in the first, and back.
  back = optical_flow_ilk(grays[1], grays[0], radius=5)
  forth = optical_flow_ilk(grays[0], grays[1], radius=5)
  places = np.mgrid[: grays[0].shape[0], : grays[0].shape[1]] + back
  returned = np.stack([warp(f, places, mode='edge') for f in forth])
  moved = np.stack([warp(first[..., c], places, mode='edge') for c in range(3)])
  # Occlusion as Sundaram et al. find it (ECCV 2010): a way without return.
  lengths = np.square(back).sum(0) + np.square(returned).sum(0)
  seen = np.square(back + returned).sum(0) <= 0.01 * lengths + 0.5
  sides = np.array(grays[0].shape).reshape(2, 1, 1)
  seen &= ((places >= 0) & (places <= sides - 1)).all(0)
  errors = np.abs(moved - np.moveaxis(second, -1, 0)).mean(0)
  return float(errors[seen].mean()) if seen.any() else float('nan')


def _middle(pixels: np.ndarray) -> np.ndarray:
  """Returns RGB of the middle as float32 in [0, 1]."""
  top, left = (max(0, (side - _SIDE) // 2) for side in pixels.shape[:2])
  part = pixels[top : top + _SIDE, left : left + _SIDE, :3]
  return part / np.float32(np.iinfo(pixels.dtype).max)
