"""Rain drawn on clean photographs, in the order in which light meets it.

The scene is seen through the haze of far rain, falling drops, and drops on the
lens, by a sensor with noise, and saved as JPEG. recipe/rain_ranges.py has the
numbers and their units. Random numbers are of a named algorithm: they are the
same eagerly, in a tf.function and in tf.data.
"""

import itertools
import math

from mixdtp_jax.data.tf import tf
from mixdtp_jax.recipe.rain_ranges import RainRanges

_LAYERS = 3  # of falling drops
_SHARPEST = 0.5  # standard deviation of a pixel's own blur, in pixels
_OPAQUE = 8.0  # pixels of thickness at which a drop on the lens hides all

# Values of the whole image; strengths are never below 0.
_STRENGTHS = ('streaks', 'veil', 'drops', 'noise', 'jpeg')
_OTHERS = ('angle', 'spread', 'width', 'occlusion', 'airlight', 'shrink')


def add_rain(
  clean: tf.Tensor, seed: tf.Tensor, ranges: RainRanges
) -> tf.Tensor:
  """Draws rain on an image, (H, W, 3) float32 in [0, 1].

  `seed` is (2,) integers; equal ones give equal rain.
  """
  image = tf.convert_to_tensor(clean, tf.float32)
  # int64, because int32 seeds give other numbers.
  seed = tf.cast(seed, tf.int64)
  seeds = tf.unstack(tf.random.split(seed, 3 + _LAYERS, 'philox'))
  drawn = _draw(ranges, seeds[0])
  image = _veil(image, drawn)
  for layer in reversed(range(_LAYERS)):
    image = _fall(image, drawn, ranges, layer, seeds[3 + layer])
  image = _wet_lens(image, drawn, ranges, seeds[1])
  return _record(image, drawn, seeds[2])


def _draw(ranges, seed):
  """Draws the values of the whole image, by name."""
  drawn = {}
  seeds = tf.random.split(seed, len(_STRENGTHS + _OTHERS), 'philox')
  for name, own in zip(_STRENGTHS + _OTHERS, tf.unstack(seeds), strict=True):
    value = _uniform((), own, getattr(ranges, name))
    drawn[name] = tf.maximum(value, 0) if name in _STRENGTHS else value
  return drawn


def _veil(image, drawn):
  """Adds haze (Koschmieder, 1924): I t + A (1 - t), t = exp(-optical depth).

  The optical depth grows with the number of drops in the air. It is one number
  for the whole image, because a photograph does not show distances.
  """
  seen = tf.exp(-drawn['veil'] * drawn['streaks'])
  return image * seen + drawn['airlight'] * (1 - seen)


def _fall(image, drawn, ranges, layer, seed):
  """Draws the falling drops of one layer; layer 0 is the nearest.

  While the shutter is open, a drop covers each pixel of its line for a moment:
  it adds light and hides some of the background (Garg and Nayar, "Vision and
  Rain", IJCV 2007). Occlusion 0, with light only added, is the model of
  Rain100L's authors (Yang et al., CVPR 2017); full occlusion is the screen rule
  1 - (1 - I)(1 - S). At depth d, lines are 1 / d as long and wide, and d^2
  times as many. Lines thinner than a pixel are fainter.
  """
  near, far = ranges.depth
  depths = [near + (far - near) * i / _LAYERS for i in range(_LAYERS + 1)]
  squares = [(a + b) ** 2 for a, b in itertools.pairwise(depths)]
  density = drawn['streaks'] * squares[layer] / sum(squares)
  seeds = tf.unstack(tf.random.split(seed, 2, 'philox'))
  depth = _uniform((), seeds[0], depths[layer : layer + 2])
  ink = _lines(image, drawn, ranges, density, depth, depths[layer], seeds[1])
  image = image * (1 - drawn['occlusion'] * ink[:, :, None])
  return tf.minimum(image + ink[:, :, None], 1.0)


def _lines(image, drawn, ranges, density, depth, nearest, seed):
  """Draws the lines of a layer at depth `nearest` or more: (H, W)."""
  longest = ranges.length[1] / nearest
  radius = math.ceil(3 * max(ranges.width[1] / nearest, _SHARPEST))
  # Lines with their centre outside the image can still reach into it.
  margin = math.ceil(longest / 2) + radius
  seeds = tf.unstack(tf.random.split(seed, 4, 'philox'))
  centre = _scatter(density, tf.shape(image)[:2] + 2 * margin, seeds[0])
  centre -= margin - radius  # relative to the image with the blur's border
  column = (tf.shape(centre)[0], 1)  # a number for each line
  length = _uniform(column, seeds[1], ranges.length) / depth
  brightness = _uniform(column, seeds[2], ranges.brightness)
  turn = tf.random.stateless_normal(column, seeds[3], alg='philox')
  radians = (math.pi / 180) * (drawn['angle'] + drawn['spread'] * turn)
  # Points at most a pixel apart along each line, from -1/2 to 1/2.
  along = tf.linspace(-0.5, 0.5, math.ceil(longest) + 1)[None]
  rows = centre[:, :1] + tf.cos(radians) * length * along
  columns = centre[:, 1:] + tf.sin(radians) * length * along
  points = tf.stack([rows, columns], axis=-1)  # (lines, points, 2)
  width = drawn['width'] / depth
  sigma = tf.maximum(width, _SHARPEST)
  # The peak of a blurred line is 1 / (sqrt(2 pi) sigma).
  peak = brightness * tf.minimum(width / _SHARPEST, 1.0)
  peak *= length / (along.shape[1] - 1) * math.sqrt(2 * math.pi) * sigma
  weights = peak * tf.cos(math.pi * along)
  ink = _splat(points, weights, tf.shape(image)[:2] + 2 * radius)
  return tf.clip_by_value(_blur(ink, sigma, radius), 0.0, 1.0)


def _wet_lens(image, drawn, ranges, seed):
  """Shows the scene upside down in drops on the lens.

  A drop is a small, strong lens: point p shows the scene at c - shrink (p - c),
  where c is the drop's centre, out of focus. With heights
  h = (r^2 - |p - c|^2) / 2, that is p + (1 + shrink) grad h. Where drops touch,
  h is the larger one.
  """
  height = _drops(image, drawn['drops'], ranges.radius, seed)
  down = (height[2:, 1:-1] - height[:-2, 1:-1]) / 2
  right = (height[1:-1, 2:] - height[1:-1, :-2]) / 2
  slope = tf.stack([down, right], axis=-1)
  shift = tf.cast(tf.round((1 + drawn['shrink']) * slope), tf.int32)
  shape = tf.shape(image)[:2]
  grid = tf.meshgrid(tf.range(shape[0]), tf.range(shape[1]), indexing='ij')
  # Beyond the border, a drop shows the scene mirrored.
  place = tf.math.floormod(tf.stack(grid, axis=-1) + shift, 2 * shape)
  place = tf.minimum(place, 2 * shape - 1 - place)
  blur = math.ceil(ranges.shrink[1])
  scene = tf.nn.avg_pool2d(image[None], blur, 1, 'SAME')[0]
  # The thickness of half a ball is sqrt(2 h).
  cover = tf.minimum(2 * height[1:-1, 1:-1, None] / _OPAQUE**2, 1.0)
  return image * (1 - cover) + tf.gather_nd(scene, place) * cover


def _drops(image, density, radius, seed):
  """Computes heights of drops with a border of 1: (H + 2, W + 2)."""
  margin = math.ceil(radius[1]) + 1
  size = tf.shape(image)[:2] + 2 * margin
  seeds = tf.unstack(tf.random.split(seed, 2, 'philox'))
  centre = _scatter(density, size, seeds[0])[:, None]
  radii = _uniform((tf.shape(centre)[0], 1), seeds[1], radius)
  reach = tf.range(-margin, margin + 1)
  patch = tf.stack(tf.meshgrid(reach, reach, indexing='ij'), axis=-1)
  pixel = tf.cast(centre, tf.int32) + tf.reshape(patch, (1, -1, 2))
  distance = tf.reduce_sum((tf.cast(pixel, tf.float32) - centre) ** 2, axis=-1)
  height = (radii**2 - distance) / 2
  inside = tf.reduce_all((pixel >= 0) & (pixel < size), axis=-1) & (height > 0)
  heights = tf.tensor_scatter_nd_max(
    tf.zeros(size), tf.boolean_mask(pixel, inside), height[inside]
  )
  border = margin - 1
  return heights[border : size[0] - border, border : size[1] - border]


def _record(image, drawn, seed):
  """Adds sensor noise, then the loss of JPEG."""
  noise = tf.random.stateless_normal(tf.shape(image), seed, alg='philox')
  image = tf.clip_by_value(image + drawn['noise'] * noise, 0.0, 1.0)
  loss = tf.cast(tf.round(drawn['jpeg']), tf.int32)
  return tf.cond(
    loss > 0,
    lambda: tf.image.adjust_jpeg_quality(image, 100 - loss, 'INTEGER_ACCURATE'),
    lambda: image,
  )


def _scatter(density, size, seed):
  """Draws points in (H, W), `density` per 10,000 pixels: (N, 2) float32."""
  seeds = tf.unstack(tf.random.split(seed, 2, 'philox'))
  sides = tf.cast(size, tf.float32)
  expected = density * 1e-4 * tf.reduce_prod(sides)
  # Rounded up or down by chance, to keep rare drops in small images.
  count = tf.cast(expected + _uniform((), seeds[0], (0, 1)), tf.int32)
  return _uniform((count, 2), seeds[1], (0, 1)) * sides


def _splat(points, weights, size):
  """Adds each point to its four pixels with bilinear weights: (H, W)."""
  floor = tf.floor(points)
  corner = tf.cast(floor, tf.int32)
  inside = tf.reduce_all((corner >= 0) & (corner < size - 1), axis=-1)
  corner, weights = corner[inside], weights[inside]
  down, right = tf.unstack((points - floor)[inside], axis=-1)
  ink = tf.zeros(size)
  for offset, share in (
    ((0, 0), (1 - down) * (1 - right)),
    ((0, 1), (1 - down) * right),
    ((1, 0), down * (1 - right)),
    ((1, 1), down * right),
  ):
    ink = tf.tensor_scatter_nd_add(ink, corner + offset, weights * share)
  return ink


def _blur(image, sigma, radius):
  """Blurs with a Gaussian, which removes a border of `radius` pixels."""
  offset = tf.range(-radius, radius + 1, dtype=tf.float32)
  kernel = tf.exp(-0.5 * tf.square(offset / sigma))
  kernel /= tf.reduce_sum(kernel)
  image = image[None, :, :, None]
  image = tf.nn.conv2d(image, kernel[:, None, None, None], 1, 'VALID')
  image = tf.nn.conv2d(image, kernel[None, :, None, None], 1, 'VALID')
  return image[0, :, :, 0]


def _uniform(shape, seed, bounds):
  """Draws numbers between two bounds."""
  low, high = bounds
  return tf.random.stateless_uniform(
    shape, seed, float(low), float(high), alg='philox'
  )
