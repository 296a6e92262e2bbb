"""Small prepared sets, and the training batches made from them."""

import itertools

import jax
import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.configs.default import get_config
from mixdtp_jax.data import mixture, train_batches
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.recipe.crop_schedule import stages
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.training.step import as_float

CROP = 16


def make_config(**data):
  config = get_config()
  config.seed, config.batch_size = 3, 8
  with config.ignore_type():  # a part of a MiB
    config.data.update({'crop': CROP, 'cache_mb': 1, **data})
  return config


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Prepares five pairs per split; clean is the inverse of rainy."""
  folder = tmp_path_factory.mktemp('pipeline')
  random = np.random.default_rng(0)
  for split, i in itertools.product(('train', 'test'), range(5)):
    rainy = random.integers(0, 256, (24 + i % 2, 30, 3), np.uint8)
    for side, image in (('rainy', rainy), ('clean', 255 - rainy)):
      path = folder / 'source' / split / side / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(path)
  data_dir = str(folder / 'data')
  registry.prepare(
    'pairs', source=str(folder / 'source'), data_dir=data_dir, crop=CROP
  )
  return data_dir


def open_pairs(data_dir, split='train'):
  return registry.open_split('pairs', source='', data_dir=data_dir, split=split)


def take(config, data_dir, count, start_step=0, rows=range(8)):
  (stage,) = stages(make_recipe(config))
  pairs = mixture.Mixture([open_pairs(data_dir)], [1], config.data.cache_mb)
  batches = train_batches.local_batches(
    make_recipe(config), pairs, stage, start_step=start_step, rows=rows
  )
  return seen(itertools.islice(batches, count))


def seen(batches):
  """Returns batches as the compiled step sees them."""
  return [
    {side: np.asarray(_as_float(images)) for side, images in batch.items()}
    for batch in batches
  ]


_as_float = jax.jit(as_float)


def assert_equal(batches, others):
  jax.tree.map(np.testing.assert_array_equal, batches, others)


def is_crop(crop, image):
  windows = np.lib.stride_tricks.sliding_window_view(
    image, crop.shape[:2], axis=(0, 1)
  )
  return (windows == crop.transpose(2, 0, 1)).all(axis=(2, 3, 4)).any()


# (H, W) of upright, wide and square images, and of such as have one column of
# cells of 32 pixels: before the wide ones are transposed, or after.
SHAPES = [(101, 70), (70, 101), (97, 97), (99, 40), (40, 99)]


@pytest.fixture(scope='module')
def published_dir(tmp_path_factory):
  """Prepares a pair of each of SHAPES."""
  folder = tmp_path_factory.mktemp('published')
  random = np.random.default_rng(1)
  for split, (i, shape) in itertools.product(
    ('train', 'test'), enumerate(SHAPES)
  ):
    rainy = random.integers(0, 256, (*shape, 3), np.uint8)
    for side, image in (('rainy', rainy), ('clean', 255 - rainy)):
      path = folder / 'source' / split / side / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(path)
  data_dir = str(folder / 'data')
  registry.prepare('pairs', source=str(folder / 'source'), data_dir=data_dir)
  return data_dir
