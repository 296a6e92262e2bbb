"""(seed, step) -> batch: the same for any threads, hosts and restarts."""

import dataclasses
import hashlib
import itertools
import os

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.data import mixture, train_batches
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.data.datasets.prepared import PreparedPairs
from mixdtp_jax.data.rain import draw
from mixdtp_jax.models import config as models
from mixdtp_jax.recipe.crop_schedule import stages
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.rain_ranges import PRESETS
from mixdtp_jax.runtime import mesh as mesh_lib
from tests.helpers.batches import (
  CROP,
  assert_equal,
  is_crop,
  make_config,
  open_pairs,
  seen,
  take,
)


def test_batches_are_aligned_crops(data_dir):
  pairs = open_pairs(data_dir)
  images = [pairs[i]['rainy'].astype(np.float32) / 255 for i in range(5)]
  config = make_config(flip=False, rotate=False)
  for batch in take(config, data_dir, 2):
    assert batch['rainy'].shape == (8, CROP, CROP, 3)
    assert batch['rainy'].dtype == batch['clean'].dtype == np.float32
    np.testing.assert_allclose(batch['rainy'] + batch['clean'], 1, atol=1e-6)
    for crop in batch['rainy']:
      assert any(is_crop(crop, image) for image in images)


@pytest.mark.parametrize('cache_mb', [0, 0.01, 1])  # none, two pairs, all
@pytest.mark.parametrize(
  ('folder', 'data', 'digest'),
  [
    ('data_dir', {}, '5fd72b61d052b44d'),
    ('published_dir', {'rotate': False}, 'cb0cfa04e7173cfc'),
    (
      'published_dir',
      {'transpose_landscape': True, 'flip': False},
      '00382c3d519e3661',
    ),
    (
      'published_dir',
      {'crop': 32, 'crops': 'second_cell', 'transpose_landscape': True},
      'ff0a078289129259',
    ),
  ],
)
def test_batches_stay_what_they_were(request, folder, data, digest, cache_mb):
  """The batches of older versions, so that their runs can continue."""
  config = make_config(cache_mb=cache_mb, **data)
  found = hashlib.sha256()
  for batch in take(config, request.getfixturevalue(folder), 6, start_step=2):
    found.update(batch['rainy'].tobytes())
    found.update(batch['clean'].tobytes())
  assert found.hexdigest()[:16] == digest


class Decoder:
  """Prepared pairs, with a count of decodings."""

  def __init__(self, pairs):
    self.pairs = pairs
    self.count = 0

  def __len__(self):
    return len(self.pairs)

  def __getitem__(self, index):
    self.count += 1
    return self.pairs[index]


@pytest.mark.parametrize('cache_mb', [0, 1])
def test_the_cache_is_alive(data_dir, cache_mb):
  pairs = Decoder(open_pairs(data_dir))
  config = make_config(cache_mb=cache_mb)
  batches = train_batches.local_batches(
    make_recipe(config),
    mixture.Mixture([pairs], [1], cache_mb),
    *stages(make_recipe(config)),
    start_step=0,
    rows=range(8),
  )
  list(itertools.islice(batches, 2))  # three epochs
  before = pairs.count
  list(itertools.islice(batches, 50))
  assert (pairs.count == before) == bool(cache_mb)


def test_the_cache_serves_every_stage(data_dir, monkeypatch):
  decode, decoded = PreparedPairs.__getitem__, []

  def counted(pairs, index):
    decoded.append(index)
    return decode(pairs, index)

  monkeypatch.setattr(PreparedPairs, '__getitem__', counted)
  monkeypatch.setattr(train_batches, 'map_in_threads', map)
  config = make_config(data_dir=data_dir)
  config.growth, config.num_train_steps = ((2, 24, 8),), 4
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  for _ in train_batches.train_batches(
    make_recipe(config), start_step=0, mesh=mesh
  ):
    pass
  assert sorted(decoded) == [0, 1, 2, 3, 4]


def test_a_restart_gives_the_same_batches(data_dir):
  config = make_config()
  whole = take(config, data_dir, 6)
  for step in range(1, 6):
    assert_equal(whole[step:], take(config, data_dir, 6 - step, step))


def test_any_number_of_threads_gives_the_same_batches(data_dir, monkeypatch):
  config = make_config(cache_mb=0.01)
  batches = []
  for cores in (1, 2, 8):
    monkeypatch.setattr(os, 'cpu_count', lambda cores=cores: cores)
    batches.append(take(config, data_dir, 12))
  assert_equal(batches[0], batches[1])
  assert_equal(batches[0], batches[2])


@pytest.mark.parametrize('hosts', [1, 2, 4])
def test_any_number_of_hosts_gives_one_batch(data_dir, hosts):
  config = make_config()
  # Each host has two runs of rows, as its devices may lie.
  rows = [
    np.arange(8).reshape(2, hosts, -1)[:, h].ravel() for h in range(hosts)
  ]
  parts = [take(config, data_dir, 3, 1, r) for r in rows]
  for batch, *of_hosts in zip(
    take(config, data_dir, 3, 1), *parts, strict=True
  ):
    for side, images in batch.items():
      for r, part in zip(rows, of_hosts, strict=True):
        np.testing.assert_array_equal(images[r], part[side])


def test_the_seed_is_alive(data_dir):
  config = make_config()
  first = take(config, data_dir, 1)[0]['rainy']
  config.seed = 4
  assert (take(config, data_dir, 1)[0]['rainy'] != first).mean() > 0.5


def test_train_batches_are_split_over_the_mesh(data_dir):
  config = make_config(data_dir=data_dir)
  mesh = mesh_lib.make_mesh()
  batches = train_batches.train_batches(
    make_recipe(config), start_step=2, mesh=mesh
  )
  expected = take(config, data_dir, 2, start_step=2)
  for batch, local in zip(itertools.islice(batches, 2), expected, strict=True):
    assert set(batch) == {'rainy', 'clean'}
    for images in batch.values():
      assert images.sharding == mesh_lib.batch_sharding(mesh)
      assert images.shape == (8, CROP, CROP, 3)
      assert images.dtype == np.uint8
    assert_equal(seen([batch]), [local])


def test_refuses_a_batch_that_devices_cannot_share(data_dir):
  config = make_config(data_dir=data_dir)
  config.batch_size = 12
  with pytest.raises(ValueError, match=r'batch_size = 12 .* 8 devices'):
    train_batches.train_batches(
      make_recipe(config), start_step=0, mesh=mesh_lib.make_mesh()
    )


def _growing(data_dir):
  """Three batches of 8 crops of 16 pixels, then 24 pixels and 4 images."""
  config = make_config(data_dir=data_dir)
  config.growth, config.num_train_steps = ((3, 24, 4),), 6
  return config


def test_growing_crops_go_through_the_images_without_a_gap(data_dir):
  config, mesh = _growing(data_dir), mesh_lib.make_mesh(jax.devices()[:4])
  grown = list(
    train_batches.train_batches(make_recipe(config), start_step=0, mesh=mesh)
  )
  shapes = [batch['rainy'].shape for batch in grown]
  assert shapes == [(8, 16, 16, 3)] * 3 + [(4, 24, 24, 3)] * 3
  # Images 24 to 35 come next: in batches of 4, those are batches 6 to 8.
  constant = make_config(data_dir=data_dir, crop=24)
  constant.batch_size = 4
  later = take(constant, data_dir, 3, start_step=6, rows=range(4))
  assert_equal(seen(grown[3:]), later)


@pytest.mark.parametrize('start', [2, 3, 4, 6])
def test_growing_crops_resume_at_any_step(data_dir, start):
  config, mesh = _growing(data_dir), mesh_lib.make_mesh(jax.devices()[:4])
  whole = list(
    train_batches.train_batches(make_recipe(config), start_step=0, mesh=mesh)
  )
  rest = list(
    train_batches.train_batches(
      make_recipe(config), start_step=start, mesh=mesh
    )
  )
  assert len(rest) == 6 - start
  assert_equal(rest, whole[start:])


def test_every_stage_is_checked_before_the_first_batch(data_dir):
  config, mesh = _growing(data_dir), mesh_lib.make_mesh()
  with pytest.raises(ValueError, match=r'batch_size = 4 .* 8 devices'):
    train_batches.train_batches(make_recipe(config), start_step=0, mesh=mesh)
  config.growth = ((3, 32, 8),)
  with pytest.raises(ValueError, match='smaller than data.crop = 32'):
    train_batches.train_batches(make_recipe(config), start_step=0, mesh=mesh)


def test_rows_of_images_are_split_along_space(published_dir):
  config = make_config(data_dir=published_dir, crop=32)
  mesh = mesh_lib.make_mesh(space=4)
  batch = next(
    train_batches.train_batches(make_recipe(config), start_step=0, mesh=mesh)
  )
  shape = batch['rainy'].sharding.shard_shape(batch['rainy'].shape)
  assert shape == (4, 8, 32, 3)
  assert_equal(seen([batch]), take(config, published_dir, 1))
  # A network that takes any crop.
  config.model = ml_collections.ConfigDict(
    models.as_mapping(models.PReNetConfig())
  )
  for crop in (16, 38):
    config.data.crop = crop
    with pytest.raises(ValueError, match=f'crop = {crop} .* mesh_space = 4'):
      train_batches.train_batches(make_recipe(config), start_step=0, mesh=mesh)


def test_refuses_a_batch_that_does_not_split_into_parts(data_dir):
  config = make_config(data_dir=data_dir)
  config.accumulate_steps = 2
  with pytest.raises(ValueError, match='8 devices .* accumulate_steps = 2'):
    train_batches.train_batches(
      make_recipe(config), start_step=0, mesh=mesh_lib.make_mesh()
    )


@pytest.fixture(scope='module')
def clean_dir(tmp_path_factory):
  """Four clean photographs, prepared to have rain drawn on them."""
  folder = tmp_path_factory.mktemp('clean')
  (folder / 'source').mkdir()
  for i in range(4):
    image = np.full((40, 48, 3), 40 + 30 * i, np.uint8)
    Image.fromarray(image).save(folder / 'source' / f'{i}.png')
  registry.prepare(
    'synthetic', source=str(folder / 'source'), data_dir=str(folder / 'data')
  )
  return str(folder / 'data')


def take_drawn(clean_dir, count=1, start_step=0, rows=range(8), preset='light'):
  config = make_config(crop=32)
  config.data.rain = ml_collections.ConfigDict(
    dataclasses.asdict(PRESETS[preset])
  )
  pairs = registry.open_split(
    'synthetic', source='', data_dir=clean_dir, split='train'
  )
  (stage,) = stages(make_recipe(config))
  pairs = mixture.Mixture([pairs], [1])
  batches = train_batches.local_batches(
    make_recipe(config), pairs, stage, start_step=start_step, rows=rows
  )
  return seen(itertools.islice(batches, count))


@pytest.mark.slow
def test_rain_is_drawn_on_clean_photographs_by_the_counter(clean_dir):
  second = take_drawn(clean_dir, 2)[1]
  for row, (rainy, clean) in enumerate(
    zip(second['rainy'], second['clean'], strict=True)
  ):
    seed = np.array([3, 8 + row])
    expected = draw.add_rain(clean, seed, PRESETS['light']).numpy()
    np.testing.assert_allclose(rainy, expected, atol=0.501 / 255)
    # Whole gray levels, as those of stored images.
    np.testing.assert_allclose(255 * rainy, np.round(255 * rainy), atol=1e-4)
  assert np.abs(second['rainy'] - second['clean']).mean() > 1e-3
  # A restart and another host draw the same, and so does no other preset.
  assert_equal(take_drawn(clean_dir, start_step=1), [second])
  part = take_drawn(clean_dir, start_step=1, rows=(2, 5))
  assert_equal(part, [{k: v[[2, 5]] for k, v in second.items()}])
  [heavy] = take_drawn(clean_dir, start_step=1, preset='heavy')
  np.testing.assert_array_equal(heavy['clean'], second['clean'])
  assert not np.array_equal(heavy['rainy'], second['rainy'])


@pytest.mark.slow
def test_rain_is_drawn_over_real_rain_on_a_share_of_the_crops(published_dir):
  plain = take(make_config(crop=32), published_dir, 20)
  for share, fewest, most in ((0.3, 0.2, 0.4), (1, 1, 1)):
    config = make_config(crop=32, rain_on_pairs=share)
    over = take(config, published_dir, 20)
    drawn = 0
    for step, (batch, old) in enumerate(zip(over, plain, strict=True)):
      np.testing.assert_array_equal(batch['clean'], old['clean'])
      for row, (rainy, before) in enumerate(
        zip(batch['rainy'], old['rainy'], strict=True)
      ):
        if not np.array_equal(rainy, before):
          drawn += 1
          last = rainy, before, 8 * step + row
    assert fewest <= drawn / 160 <= most
    rainy, before, k = last
    expected = draw.add_rain(before, np.array([3, k]), PRESETS['mixed'])
    np.testing.assert_allclose(rainy, expected, atol=0.501 / 255)
