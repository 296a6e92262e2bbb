import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.data import images
from mixdtp_jax.data.datasets import photographs, registry
from tests.helpers.image_files import save


def open_partial(name, source, split):
  data_dir = str(source.parent / 'data')
  builder = registry.prepare(
    name, source=str(source), data_dir=data_dir, partial=True
  )
  return registry.PreparedPairs(builder, split)


def test_refuses_other_counts_than_published_unless_told(tmp_path, caplog):
  source = tmp_path / 'source'
  for split in ('train', 'test'):
    for side in ('input', 'target'):
      save(source / split / side / '1.png')
  arguments = {'source': str(source), 'data_dir': str(tmp_path / 'data')}
  with pytest.raises(
    ValueError,
    match='1 train pairs instead of 1,800 or 1,254, 1 test pairs instead of 100'
    '.*prepare rain100h --source .*source --data_dir .*data --partial',
  ):
    registry.prepare('rain100h', **arguments)
  pairs = open_partial('rain100h', source, 'train')
  assert (len(pairs), pairs.name) == (1, 'part of rain100h')
  # Once prepared it is used, and said to be a part.
  registry.open_split('rain100h', **arguments, split='test')
  assert 'is a part of the data set: it has 1 train' in caplog.text


def test_a_part_may_lack_a_split_but_not_all(tmp_path):
  source = tmp_path / 'source'
  for side in ('input', 'target'):
    save(source / 'train' / side / '1.png')
  assert len(open_partial('rain200l', source, 'train')) == 1
  (source / 'train').rename(source / 'other')
  with pytest.raises(FileNotFoundError, match='has other/; expected'):
    open_partial('rain200h', source, 'train')


def test_halves_are_kept_to_the_pixel(tmp_path):
  source = tmp_path / 'source'
  save(source / 'train/1.jpg', (40, 30))
  pairs = open_partial('rain800', source, 'train')
  with Image.open(source / 'train/1.jpg') as image:
    both = np.asarray(image)
  assert pairs.shape(0) == (30, 20)
  np.testing.assert_array_equal(pairs[0]['clean'], both[:, :20])
  np.testing.assert_array_equal(pairs[0]['rainy'], both[:, 20:])


def test_a_file_without_two_halves(tmp_path):
  source = tmp_path / 'source'
  save(source / 'train/1.jpg', (41, 30))
  with pytest.raises(ValueError, match=r'1\.jpg is 41 pixels wide, .* odd'):
    open_partial('rain800', source, 'train')
  path = source / 'train/1.jpg'
  save(path, (40, 30))
  path.write_bytes(path.read_bytes()[:-300])
  with pytest.raises(ValueError, match=r'train/1\.jpg cannot be decoded'):
    open_partial('rain800', source, 'train')


def test_a_set_of_one_side(tmp_path):
  source = tmp_path / 'source'
  save(source / '1.jpg')
  rainy = open_partial('rid', source, 'test')
  assert set(rainy[0]) == {'name', 'rainy'}
  image = images.read_image(source / '1.jpg')
  np.testing.assert_array_equal(rainy[0]['rainy'], image)
  clean = open_partial('synthetic', source, 'train')
  assert set(clean[0]) == {'name', 'clean'}
  arguments = {'source': '', 'data_dir': str(tmp_path / 'data')}
  with pytest.raises(ValueError, match='rid has no clean images'):
    registry.open_split('rid', **arguments, split='test')
  with pytest.raises(ValueError, match='synthetic has no rainy images'):
    registry.open_split('synthetic', **arguments, split='test')
  training = registry.open_split('synthetic', **arguments, split='train')
  assert set(training[0]) == {'name', 'clean'}  # to draw rain on


def test_says_how_to_prepare(tmp_path):
  with pytest.raises(FileNotFoundError, match='mixdtp prepare ddn --source'):
    registry.prepare('ddn', source='', data_dir=str(tmp_path))


def test_rain100l_pairs_the_published_files(real_data):
  data_set = registry.DATASETS['rain100l']
  found = data_set.find_pairs(real_data / 'rain100l', False)
  sizes = {split: len(pairs) for split, pairs in found.items()}
  assert sizes == {'train': 200, 'test': 100}
  assert not data_set.unlike_published(sizes)
  for pairs in found.values():
    for pair in (pairs[0], pairs[9], pairs[-1]):
      # Rain only brightens: a wrong partner would not be darker everywhere.
      assert (brightening(pair) >= -3).mean() > 0.99


def test_rain800_pairs_the_published_halves(real_data):
  data_set = registry.DATASETS['rain800']
  found = data_set.find_pairs(real_data / 'rain800', True)
  assert len(found['train']) in data_set.counts['train']
  # In one of six the rainy half is darker, and those look as published.
  assert np.median([brightening(p).mean() for p in found['train'][::50]]) > 5


def brightening(pair):
  rainy = images.read_image(pair.rainy).astype(int)
  return rainy - images.read_image(pair.clean)


def test_photographs(tmp_path, monkeypatch):
  monkeypatch.setattr(photographs, 'TRAIN_VERSIONS', 1)
  monkeypatch.setattr(photographs, 'TEST_VERSIONS', 2)
  opened = {
    split: registry.open_split(
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
