"""Rain drawn on clean photographs: streaks in layers of depth.

A camera sees a falling drop as a line, longer, wider and brighter the nearer
it falls. Every layer scatters such lines over the image, all along one
direction with a small spread, and is blended over it by the screen rule
1 - (1 - image)(1 - streaks), which only brightens and never exceeds white.

TensorFlow with stateless random numbers: the same eagerly, in a tf.function
and in tf.data.
"""

import dataclasses
import math

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Layer:
  """Streaks at one depth; (low, high) ranges are drawn uniformly.

  Attributes:
    streaks: lines for each million pixels.
    length: of each line, in pixels.
    width: standard deviation of the layer's blur across the lines, in pixels.
    brightness: peak of each line, 0 to 1.
  """

  streaks: float
  length: tuple[float, float]
  width: tuple[float, float]
  brightness: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Rain:
  """A kind of rain.

  Attributes:
    layers: from far to near.
    angle: range of the image's one direction, in degrees from the vertical.
    spread: standard deviation of the lines about it, in degrees.
    density: range of a factor on the number of lines, one for each image.
  """

  layers: tuple[Layer, ...]
  angle: tuple[float, float] = (-35.0, 35.0)
  spread: float = 1.5
  density: tuple[float, float] = (0.25, 1.4)


# Chosen by eye and by PSNR beside the rainy images of Rain100L.
LIGHT = Rain(
  layers=(
    Layer(3000, (8, 24), (0.5, 0.7), (0.05, 0.4)),
    Layer(1200, (16, 48), (0.6, 0.9), (0.1, 0.7)),
    Layer(150, (30, 90), (0.8, 1.3), (0.2, 0.8)),
  )
)


def add_rain(image: tf.Tensor, seed: tf.Tensor, rain: Rain = LIGHT):
  """Draws rain on an image.

  Args:
    image: (H, W, 3) float32 in [0, 1].
    seed: (2,) integers; equal seeds draw equal rain.
    rain: the kind of rain.

  Returns:
    (H, W, 3) float32 in [0, 1], nowhere darker than `image`.
  """
  image = tf.convert_to_tensor(image, tf.float32)
  height, width = tf.shape(image)[0], tf.shape(image)[1]
  # One type: a seed's numbers split differently as int32 and as int64.
  seeds = tf.random.split(tf.cast(seed, tf.int64), 2 + len(rain.layers))
  angle = _uniform((), seeds[0], rain.angle)
  density = _uniform((), seeds[1], rain.density)
  clear = 1 - image
  for layer, layer_seed in zip(rain.layers, tf.unstack(seeds[2:]), strict=True):
    streaks = _draw(
      layer, angle, rain.spread, density, height, width, layer_seed
    )
    clear *= 1 - streaks[:, :, None]
  # The product above can round to a hair below the image.
  return tf.clip_by_value(1 - clear, image, 1.0)


def _draw(layer, angle, spread, density, height, width, seed):
  """One layer: (H, W) float32 in [0, 1]."""
  # Lines whose centre lies outside the image still reach into it.
  margin = math.ceil(layer.length[1] / 2)
  full = tf.stack([height + 2 * margin, width + 2 * margin])
  area = tf.cast(full[0] * full[1], tf.float32)
  count = tf.cast(tf.round(area * 1e-6 * layer.streaks * density), tf.int32)
  seeds = tf.unstack(tf.random.split(seed, 5))
  centre = tf.random.stateless_uniform((count, 2), seeds[0]) * tf.cast(
    full, tf.float32
  )
  length = _uniform((count, 1), seeds[1], layer.length)
  brightness = _uniform((count, 1), seeds[2], layer.brightness)
  blur = _uniform((), seeds[3], layer.width)
  radians = (math.pi / 180) * (
    angle + spread * tf.random.stateless_normal((count, 1), seeds[4])
  )
  # Points no more than a pixel apart along each line, from -1/2 to 1/2.
  along = tf.linspace(-0.5, 0.5, math.ceil(layer.length[1]))[None]
  step = length / along.shape[1]
  points = tf.stack(
    [
      centre[:, :1] + tf.cos(radians) * length * along,
      centre[:, 1:] + tf.sin(radians) * length * along,
    ],
    axis=-1,
  )  # (count, points, 2): row, column
  # A line that is blurred across has its peak at 1 / (sqrt(2 pi) blur).
  peak = brightness * step * math.sqrt(2 * math.pi) * blur
  ink = _splat(points, peak * tf.cos(math.pi * along), full)
  ink = ink[margin : margin + height, margin : margin + width]
  return tf.clip_by_value(_blur(ink, blur, layer.width[1]), 0.0, 1.0)


def _splat(points, weights, shape):
  """Adds each point to its four pixels, in bilinear shares: (H, W)."""
  points = tf.reshape(points, (-1, 2))
  weights = tf.reshape(weights, (-1,))
  floor = tf.floor(points)
  share = points - floor
  corner = tf.cast(floor, tf.int32)
  ink = tf.zeros(tf.reduce_prod(shape))
  for row in (0, 1):
    for column in (0, 1):
      pixel = corner + (row, column)
      inside = tf.reduce_all((pixel >= 0) & (pixel < shape), axis=1)
      near = tf.abs(tf.constant([1.0 - row, 1.0 - column]) - share)
      value = tf.where(inside, weights * tf.reduce_prod(near, axis=1), 0.0)
      index = tf.where(inside, pixel[:, 0] * shape[1] + pixel[:, 1], 0)
      ink = tf.tensor_scatter_nd_add(ink, index[:, None], value)
  return tf.reshape(ink, shape)


def _blur(image, sigma, largest):
  """Gaussian blur of (H, W) with zeros beyond the border."""
  radius = math.ceil(3 * largest)
  offset = tf.range(-radius, radius + 1, dtype=tf.float32)
  kernel = tf.exp(-0.5 * tf.square(offset / sigma))
  kernel /= tf.reduce_sum(kernel)
  image = image[None, :, :, None]
  image = tf.nn.conv2d(image, kernel[:, None, None, None], 1, 'SAME')
  image = tf.nn.conv2d(image, kernel[None, :, None, None], 1, 'SAME')
  return image[0, :, :, 0]


def _uniform(shape, seed, bounds):
  low, high = bounds
  return tf.random.stateless_uniform(shape, seed, float(low), float(high))
