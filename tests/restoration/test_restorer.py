import concurrent.futures
import inspect
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import mixdtp_jax
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.restoration.restorer import Images, Restorer
from mixdtp_jax.restoration.whole_image import make_restore
from mixdtp_jax.weights.load import load_weights
from tests.conftest import REPOSITORY
from tests.helpers import hostile

LUMA = (0.299, 0.587, 0.114)


@pytest.fixture(scope='module')
def restorer(tiny_weights):
  return mixdtp_jax.load(tiny_weights)


@pytest.fixture(scope='module')
def whole(tiny_weights):
  """The network at once, from images (H, W, 3) to the same."""
  cfg, params = load_weights(tiny_weights)
  restore = make_restore(final_image(cfg), params, multiple=cfg.multiple)
  return lambda image: restore(image[None])[0]


def rgb(dtype=np.uint8, shape=(19, 26, 3), seed=0):
  random = np.random.default_rng(seed).random(shape)
  if np.issubdtype(dtype, np.integer):
    return np.round(random * np.iinfo(dtype).max).astype(dtype)
  return random.astype(dtype)


def scale(dtype):
  return np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1


@pytest.mark.parametrize(
  'dtype', [np.uint8, np.uint16, np.float16, np.float32, np.float64]
)
def test_arrays_are_restored_as_what_they_are(restorer, whole, dtype):
  image = rgb(dtype)
  expected = whole((image / np.float64(scale(dtype))).astype(np.float32))
  found = restorer(image)
  assert (type(found), found.dtype, found.shape) == (
    np.ndarray,
    image.dtype,
    image.shape,
  )
  tolerance = {2: 1e-3, 1: 1e-3}.get(image.dtype.itemsize, 1e-5)
  if np.issubdtype(dtype, np.integer):
    exact = expected * scale(dtype)
    assert np.abs(found - exact).max() <= 0.5 + 1e-5 * scale(dtype)
  else:
    np.testing.assert_allclose(found, expected, atol=tolerance)
  assert np.abs(found.astype(float) - image).max() > 0.01 * scale(dtype)


def test_gray_and_alpha(restorer):
  image = rgb(np.float32)
  gray = image[..., 0]
  colours = restorer(np.repeat(gray[..., None], 3, axis=2))
  np.testing.assert_allclose(restorer(gray), colours @ LUMA, atol=1e-5)
  with_alpha = rgb(shape=(19, 26, 4))
  found = restorer(with_alpha)
  np.testing.assert_array_equal(found[..., 3], with_alpha[..., 3])
  np.testing.assert_array_equal(found[..., :3], restorer(with_alpha[..., :3]))


def test_batches_and_jax_arrays(restorer):
  images = rgb(shape=(2, 19, 26, 3))
  found = restorer(images)
  for image, expected in zip(images, found, strict=True):
    np.testing.assert_array_equal(restorer(image), expected)
  for dtype in (jnp.uint8, jnp.float32, jnp.bfloat16):
    image = jnp.asarray(
      images[0] if dtype == jnp.uint8 else images[0] / 255, dtype
    )
    restored = restorer(image)
    assert isinstance(restored, jax.Array)
    assert (restored.dtype, restored.shape) == (dtype, image.shape)
  np.testing.assert_array_equal(restorer(jnp.asarray(images)), found)


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    (np.zeros((4, 5, 2), np.uint8), r'shape \(4, 5, 2\): needs \(H, W\)'),
    (np.zeros((0, 5, 3), np.uint8), 'there are none'),
    (np.zeros((0, 4, 5, 3), np.uint8), r'shape \(0, 4, 5, 3\)'),
    (np.zeros((4, 5, 3), np.int64), 'pixels of int64: needs uint8, uint16'),
    (np.full((4, 5, 3), 200.0), r'from 200\.0 to 200\.0: needs \[0, 1\]'),
    (np.full((4, 5, 3), -0.1), r'needs \[0, 1\]'),
    (np.full((4, 5, 3), np.nan), r'needs \[0, 1\]'),
  ],
)
def test_other_arrays_are_refused(restorer, image, message):
  with pytest.raises(ValueError, match=message):
    restorer(image)


def test_values_that_are_not_finite_are_named(restorer, monkeypatch):
  def broken(image, progress=None, beside=0):
    return np.full(image.shape, np.nan, np.float32)

  monkeypatch.setattr(restorer, '_engine', broken)
  for image in (rgb(), Image.fromarray(rgb()), rgb(np.float32)):
    with pytest.raises(ValueError, match='network gives .* not finite'):
      restorer(image)


def test_other_things_are_refused(restorer):
  with pytest.raises(TypeError, match='str is no image: needs an array'):
    restorer('photo.jpg')


@pytest.mark.parametrize(
  ('mode', 'result'),
  [
    ('L', 'L'),
    ('LA', 'LA'),
    ('RGB', 'RGB'),
    ('RGBA', 'RGBA'),
    ('P', 'RGB'),
    ('CMYK', 'RGB'),
    ('1', 'L'),
  ],
)
def test_pil_images(restorer, mode, result):
  image = hostile.smooth().convert(mode)
  image.info['dpi'] = (300, 300)
  restored = restorer(image)
  assert isinstance(restored, Image.Image)
  assert (restored.mode, restored.size) == (result, image.size)
  assert restored.info == image.info
  if mode in ('L', 'RGB', 'RGBA'):
    np.testing.assert_array_equal(
      np.asarray(restored), restorer(np.asarray(image))
    )


def test_inks_of_a_pil_image_go_through_their_profile(restorer, monkeypatch):
  """Pure inks C, M, Y, K are red, green, blue, black in that profile."""
  monkeypatch.setattr(restorer, 'restore', lambda pixels: pixels)
  inks = np.uint8(255 * np.eye(4))[None]
  image = Image.fromarray(inks, 'CMYK')
  image.info |= {'icc_profile': hostile.printers_profile(), 'dpi': (300, 300)}
  restored = restorer(image)
  expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0] * 3]
  np.testing.assert_allclose(np.asarray(restored)[0], expected, atol=12)
  assert restored.info == {'dpi': (300, 300)}


@pytest.mark.parametrize(('mode', 'clear'), [('L', 9), ('RGB', (9, 9, 9))])
def test_the_transparent_colour_of_a_pil_image(
  restorer, monkeypatch, tmp_path, mode, clear
):
  monkeypatch.setattr(restorer, 'restore', lambda pixels: pixels)
  path = tmp_path / 'a.png'
  image = Image.new(mode, (3, 2), clear)
  image.putpixel((1, 0), 200 if mode == 'L' else (200, 200, 200))
  image.save(path, transparency=clear)
  restored = restorer(Image.open(path))
  restored.save(path)  # by what `info` says
  found = Image.open(path)
  assert found.mode == f'{mode}A'
  alpha = np.asarray(found)[..., -1]
  np.testing.assert_array_equal(alpha, [[0, 255, 0], [0, 0, 0]])


def test_16_bit_pil_images(restorer):
  gray = hostile.wide(1)[..., 0]
  restored = restorer(Image.fromarray(gray))
  assert restored.mode == 'I;16'
  np.testing.assert_array_equal(np.asarray(restored), restorer(gray))
  with pytest.raises(ValueError, match='mode F: pass its pixels as an array'):
    restorer(Image.new('F', (4, 4)))


@pytest.mark.parametrize('how', [6, 8, 3, 5])
def test_a_pil_image_is_restored_upright(restorer, how):
  """Rain falls down: a photograph on its side is turned for the network."""
  image = hostile.smooth()
  image.getexif()[0x0112] = how
  methods = {
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
    3: (Image.Transpose.ROTATE_180,) * 2,
    5: (Image.Transpose.TRANSPOSE,) * 2,
  }
  turn, back = methods[how]
  upright = hostile.smooth().transpose(turn)
  expected = restorer(upright).transpose(back)
  np.testing.assert_array_equal(
    np.asarray(restorer(image)), np.asarray(expected)
  )


def test_threads_share_a_restorer(restorer):
  images = [rgb(seed=seed, shape=(16 + seed, 24, 3)) for seed in range(6)]
  expected = [restorer(image) for image in images]
  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    for found, wanted in zip(pool.map(restorer, images), expected, strict=True):
      np.testing.assert_array_equal(found, wanted)


def test_it_is_typed_and_documented():
  assert mixdtp_jax.__version__
  for function in (mixdtp_jax.load, Restorer, Restorer.__call__):
    assert function.__doc__
  assert Restorer.__call__.__annotations__ == {
    'image': Images,
    'return': Images,
  }
  assert mixdtp_jax.load.__annotations__['return'] == 'Restorer'
  parameters = inspect.signature(mixdtp_jax.load).parameters
  assert list(parameters) == ['weights', 'memory', 'scratch', 'dtype']
  assert parameters['weights'].default == 'general'


PROGRAM = """
import os, sys
print('started', flush=True)  # a second time if the process starts again
import mixdtp_jax
assert not {'jax', 'numpy', 'PIL'} & set(sys.modules), 'not lazy'
from PIL import Image
limit = Image.MAX_IMAGE_PIXELS
import numpy as np
restorer = mixdtp_jax.load(sys.argv[1])
# They take longer to import than a small picture takes.
assert not {'flax', 'orbax', 'torch', 'tensorflow'} & set(sys.modules)
restored = restorer(np.zeros((9, 12, 3), np.uint8))
heavy = {'tensorflow', 'orbax', 'torch', 'tensorflow_datasets', 'clu'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert Image.MAX_IMAGE_PIXELS == limit, 'the limit of others was changed'
print(restored.shape)
"""


def test_a_program_of_three_lines(tiny_weights, tmp_path):
  """Nothing heavy is imported, and nothing is started again."""
  result = subprocess.run(
    [sys.executable, '-c', PROGRAM, str(tiny_weights)],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
    timeout=300,
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout == 'started\n(9, 12, 3)\n'
