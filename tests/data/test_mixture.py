import concurrent.futures
import itertools
import os
import pathlib
import threading

import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.configs.default import get_config
from mixdtp_jax.data import mixture, sampling, train_batches
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.recipe.crop_schedule import stages
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime import mesh as mesh_lib

SIZES = {'pairs': 3, 'rain200l': 5, 'rain800': 2}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Three prepared sets of plain images; the brightness tells which one."""
  folder = tmp_path_factory.mktemp('mixture')
  for number, (name, size) in enumerate(SIZES.items()):
    for image, side in itertools.product(range(size), ('input', 'target')):
      path = folder / name / 'train' / side / f'{image}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      pixels = np.full((8, 8, 3), 60 * number + 10 * image, np.uint8)
      Image.fromarray(pixels).save(path)
    if name == 'pairs':
      (folder / name / 'test').symlink_to(folder / name / 'train')
    registry.prepare(
      name, source=str(folder / name), data_dir=str(folder), partial=True
    )
  return str(folder)


def make_config(data_dir, **data):
  config = get_config()
  config.seed, config.batch_size = 1, 4
  config.data.update(
    {
      'mixture': (('pairs', 1), ('rain200l', 4), ('rain800', 2)),
      'data_dir': data_dir,
      'crop': 8,
      'flip': False,
      'rotate': False,
      **data,
    }
  )
  return config


def shown(config, count, start_step=0, rows=range(4)):
  """Returns (set, image) of every row of `count` batches."""
  (stage,) = stages(make_recipe(config))
  batches = train_batches.local_batches(
    make_recipe(config),
    mixture.open_mixture(config.data, config.data.crop),
    stage,
    start_step=start_step,
    rows=rows,
  )
  batches = itertools.islice(batches, count)
  pixels = np.concatenate([b['rainy'][:, 0, 0, 0] for b in batches])
  return [divmod(int(p), 60) for p in pixels]


def test_every_round_has_each_set_as_often_as_its_weight(data_dir):
  rows = shown(make_config(data_dir), 35)  # 140 crops, 20 rounds of 7
  orders = set()
  for start in range(0, 140, 7):
    sets = [number for number, _ in rows[start : start + 7]]
    assert [sets.count(number) for number in range(3)] == [1, 4, 2]
    orders.add(tuple(sets))
  assert len(orders) > 10


def test_every_set_shows_all_its_images_in_each_of_its_epochs(data_dir):
  rows = shown(make_config(data_dir), 35)
  for number, size in enumerate(SIZES.values()):
    images = [image for which, image in rows if which == number]
    # Places of a round are in an order of their own, so an epoch's end may
    # be mixed with the next one's start, by less than a round.
    weight = (1, 4, 2)[number]
    for seen in range(1, len(images) + 1):
      counts = [images[:seen].count(10 * image) for image in range(size)]
      assert sum(counts) == seen
      assert max(counts) - min(counts) <= 1 + -(-weight // size)


def test_a_restart_gives_the_same_crops(data_dir):
  config = make_config(data_dir)
  whole = shown(config, 10)
  assert whole[4 * 7 :] == shown(config, 3, start_step=7)
  assert whole[1::4] == shown(config, 10, rows=[1])


def test_a_mixture_of_one_set_is_that_set(data_dir):
  config = make_config(data_dir, mixture=(('rain200l', 3),))
  alone = make_config(data_dir, mixture=(), name='rain200l')
  assert sorted(set(shown(config, 5))) == sorted(set(shown(alone, 5)))
  order = [
    int(sampling._image_index(train_batches.tf.constant(k, 'int64'), 5, 1)) * 10
    for k in range(20)
  ]
  assert [image for _, image in shown(alone, 5)] == order


def test_training_batches_are_of_the_mixture(data_dir):
  config = make_config(data_dir, name='rain100l')  # only tested on
  config.batch_size = 8
  batches = train_batches.train_batches(
    make_recipe(config), start_step=2, mesh=mesh_lib.make_mesh()
  )
  pixels = np.asarray(next(batches)['rainy'][:, 0, 0, 0])
  found = [divmod(int(p), 60) for p in pixels]
  assert found == shown(config, 1, start_step=2, rows=range(8))


def test_is_a_sequence_of_all_pairs(data_dir):
  pairs = mixture.open_mixture(make_config(data_dir).data, 8)
  assert len(pairs) == 10
  assert [int(pairs[i]['clean'][0, 0, 0]) for i in range(10)] == [
    *(0, 10, 20),
    *(60, 70, 80, 90, 100),
    *(120, 130),
  ]
  assert pairs.shape(9) == (8, 8)
  with pytest.raises(IndexError):
    pairs[10]


def test_a_set_that_is_not_prepared_is_named(data_dir):
  config = make_config(data_dir, mixture=(('ddn', 1),))
  with pytest.raises(FileNotFoundError, match='mixdtp prepare ddn --source'):
    mixture.open_mixture(config.data, 8)


def test_a_changed_source_of_another_set_is_noticed(data_dir):
  data = make_config(data_dir, source=f'{data_dir}/pairs').data
  assert len(mixture.open_mixture(data, 8)) == 10
  path = pathlib.Path(data_dir, 'rain800/train/target/0.png')
  content, times = path.read_bytes(), path.stat()
  path.write_bytes((path.with_name('1.png')).read_bytes())
  try:
    with pytest.raises(ValueError, match='rain800 has changed since'):
      mixture.open_mixture(data, 8)
    data.source = ''
    assert len(mixture.open_mixture(data, 8)) == 10
  finally:
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


# The cache of decoded pairs.
_SIZE = 300 * 400 * 3 * 2  # bytes of a pair: three fit into 2.1 MiB


class _Decoder:
  """Pairs that count how often each one is decoded."""

  def __init__(self, count):
    self.counts = [0] * count
    self._lock = threading.Lock()

  def __len__(self):
    return len(self.counts)

  def __getitem__(self, index):
    with self._lock:
      self.counts[index] += 1
    image = np.full((300, 400, 3), index, np.uint8)
    return {'name': str(index), 'rainy': image, 'clean': 255 - image}

  def shape(self, index):
    return 300, 400 + index


def _cached(decoder, limit_mb):
  return mixture.Mixture([decoder], [1], limit_mb)


def test_gives_what_the_pairs_are():
  decoder = _Decoder(4)
  pairs = _cached(decoder, 1)
  assert len(pairs) == 4
  assert pairs.shape(3) == (300, 403)
  for _ in range(2):
    for index in range(4):
      pair = pairs[index]
      assert pair['name'] == str(index)
      assert (pair['rainy'] == index).all()
      assert (pair['clean'] == 255 - index).all()


@pytest.mark.parametrize(
  ('limit_mb', 'kept'),
  [(0, 0), (0.1, 0), (_SIZE / 2**20, 1), (2.1, 3), (100, 5)],
)
def test_keeps_as_many_as_fit(limit_mb, kept):
  decoder = _Decoder(5)
  pairs = _cached(decoder, limit_mb)
  for _ in range(3):
    for index in range(5):
      pairs[index]
  assert decoder.counts == [1] * kept + [3] * (5 - kept)


def test_a_smaller_pair_fills_what_is_left():
  class Shrinking(_Decoder):
    def __getitem__(self, index):
      pair = super().__getitem__(index)
      rows = 300 // (index + 1)
      return {s: pair[s][:rows].copy() for s in ('rainy', 'clean')}

  decoder = Shrinking(3)
  pairs = _cached(decoder, 1.4 * _SIZE / 2**20)
  for _ in range(2):
    for index in range(3):
      pairs[index]
  assert decoder.counts == [1, 2, 1]  # a whole, no half, a third


def test_threads_do_not_pass_the_limit():
  decoder = _Decoder(40)
  pairs = _cached(decoder, 10 * _SIZE / 2**20)
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(pairs.__getitem__, list(range(40)) * 3))
  before = list(decoder.counts)
  for index in range(40):
    pairs[index]
  again = [a - b for a, b in zip(decoder.counts, before, strict=True)]
  assert again.count(0) == 10
