import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.data import datasets, folders
from mixdtp_jax.data.datasets import photographs


def save(path, size=(40, 36), mode='RGB', seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
  Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path)


@pytest.fixture
def source(tmp_path):
  for number, name in enumerate(('a.png', 'c.jpg', 'b.png')):
    for split in ('train', 'test'):
      for side in ('rainy', 'clean'):
        save(tmp_path / 'source' / split / side / name, seed=number)
  return tmp_path / 'source'


def prepare(source, crop=32):
  data_dir = source.parent / 'data'
  return datasets.prepare(
    'pairs', source=str(source), data_dir=str(data_dir), crop=crop
  )


def open_split(source, split, crop=32):
  data_dir = source.parent / 'data'
  return datasets.open_split(
    'pairs',
    source=str(source),
    data_dir=str(data_dir),
    split=split,
    crop=crop,
  )


def test_keeps_the_files_and_their_order(source):
  pairs = open_split(source, 'train')
  files = folders.find_pairs(source / 'train')
  assert [pairs[i]['name'] for i in range(len(pairs))] == ['a', 'b', 'c']
  for index, file in enumerate(files):
    assert pairs.shape(index) == (36, 40)
    for side in ('rainy', 'clean'):
      image = folders.read_image(getattr(file, side))
      np.testing.assert_array_equal(pairs[index][side], image)


def test_prepares_once(source):
  folder = prepare(source).data_path
  times = {p: p.stat().mtime for p in folder.iterdir()}
  assert prepare(source).data_path == folder
  assert {p: p.stat().mtime for p in folder.iterdir()} == times


def test_a_host_that_finishes_second_takes_the_first_copy(source, monkeypatch):
  find_pairs = datasets.OwnPairs.find_pairs

  def overtaken(builder, folder):
    monkeypatch.setattr(datasets.OwnPairs, 'find_pairs', find_pairs)
    prepare(source)  # another host's whole preparation, in the middle of ours
    return find_pairs(builder, folder)

  monkeypatch.setattr(datasets.OwnPairs, 'find_pairs', overtaken)
  assert len(datasets.PreparedPairs(prepare(source), 'train')) == 3
  assert [p.name for p in (source.parent / 'data/pairs').iterdir()] == ['1.0.0']


def damage_partner(source):
  (source / 'train/clean/b.png').unlink()


def damage_size(source):
  save(source / 'train/clean/b.png', (40, 37))


def damage_crop(source):
  for side in ('rainy', 'clean'):
    save(source / f'train/{side}/b.png', (40, 31))


def damage_mode(source):
  save(source / 'train/clean/b.png', mode='L')


def damage_bytes(source):
  path = source / 'train/clean/b.png'
  path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (damage_partner, r'without a clean image: .*rainy/b\.png'),
    (damage_size, r'b: the rainy image is 40x36'),
    (damage_crop, r'b.*b\.png.* side of 31.*data\.crop = 32'),
    (damage_mode, r'clean/b\.png is not RGB'),
    (damage_bytes, r'clean/b\.png cannot be decoded'),
  ],
)
def test_stops_at_a_bad_file_and_leaves_nothing(source, damage, message):
  damage(source)
  with pytest.raises(ValueError, match=message):
    prepare(source)
  data = source.parent / 'data'
  assert not [p for p in data.rglob('*') if p.is_file()]
  for side in ('rainy', 'clean'):
    save(source / f'train/{side}/b.png')
  assert len(open_split(source, 'train')) == 3


def test_small_test_images_are_fine(source):
  for side in ('rainy', 'clean'):
    save(source / f'test/{side}/b.png', (9, 8))
  assert open_split(source, 'test').shape(1) == (8, 9)


def test_refuses_a_copy_of_another_source(source):
  prepare(source)
  other = source.rename(source.parent / 'other')
  with pytest.raises(ValueError, match=r"prepared from '.*source', not from"):
    prepare(other)
  pairs = datasets.open_split(
    'pairs', source='', data_dir=str(source.parent / 'data'), split='test'
  )
  assert len(pairs) == 3


def test_refuses_a_copy_with_images_below_the_crop(source):
  prepare(source)
  with pytest.raises(ValueError, match=r'side of 36 .*data\.crop = 37'):
    prepare(source, crop=37)


def test_refuses_unknown_names_and_splits(source):
  with pytest.raises(ValueError, match=r"'rain'.*pairs, .*rain100l"):
    datasets.prepare('rain', source='', data_dir=str(source.parent))
  with pytest.raises(ValueError, match=r"no split 'val', only test, train"):
    open_split(source, 'val')


def test_says_what_a_folder_of_pairs_lacks(source):
  with pytest.raises(FileNotFoundError, match='clean/, rainy/; expected train'):
    prepare(source / 'train')


def test_rain100l_says_what_is_missing(tmp_path):
  save(tmp_path / 'source/train/rain/norain-1x2.png')
  with pytest.raises(FileNotFoundError, match=r'399 of 400 .*norain-2x2\.png'):
    datasets.prepare(
      'rain100l', source=str(tmp_path / 'source'), data_dir=str(tmp_path)
    )


def test_rain100l_pairs_the_published_files(real_data):
  found = datasets.Rain100L.find_pairs(None, real_data / 'rain100l')
  assert {split: len(pairs) for split, pairs in found.items()} == {
    'train': 200,
    'test': 100,
  }
  for pairs in found.values():
    for pair in (pairs[0], pairs[9], pairs[-1]):
      rainy = folders.read_image(pair.rainy).astype(int)
      # Rain only brightens: a wrong partner would not be darker everywhere.
      assert (rainy - folders.read_image(pair.clean) >= -3).mean() > 0.99


def test_photographs(tmp_path, monkeypatch):
  monkeypatch.setattr(photographs, 'TRAIN_VERSIONS', 1)
  monkeypatch.setattr(photographs, 'TEST_VERSIONS', 2)
  opened = {
    split: datasets.open_split(
      'photographs', source='', data_dir=str(tmp_path), split=split, crop=96
    )
    for split in ('train', 'test')
  }
  assert (len(opened['train']), len(opened['test'])) == (3, 4)
  first, second = opened['test'][0], opened['test'][1]
  assert (first['name'], second['name']) == ('chelsea-01', 'chelsea-02')
  np.testing.assert_array_equal(first['clean'], second['clean'])
  assert (first['rainy'] >= first['clean']).all()
  assert (first['rainy'] != second['rainy']).mean() > 0.1
