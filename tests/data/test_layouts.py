import pathlib
import re

import pytest

from mixdtp_jax.data import layouts
from mixdtp_jax.data.datasets.registry import DATASETS
from mixdtp_jax.data.images import Half

# Numbers of pairs as published; the two of Rain100H are of two versions.
COUNTS = {
  'rain100l': {'train': (200,), 'test': (100,)},
  'rain100h': {'train': (1800, 1254), 'test': (100,)},
  'rain200l': {'train': (1800,), 'test': (200,)},
  'rain200h': {'train': (1800,), 'test': (200,)},
  'spa': {'train': (638492,), 'test': (1000,)},
  'raindrop': {'train': (861,), 'test': (58,), 'test_b': (249,)},
  'rid': {'test': (2495,)},
  'did': {'train': (12000,), 'test': (1200,)},
  'ddn': {'train': (12600,), 'test': (1400,)},
  'rain800': {'train': (700,), 'test': (100,)},
}

# Data set, split, rainy and clean file of the pair number {}.
TWO_FILES = [
  ('rain100l', 'train/rain/norain-{}x2.png', 'train/norain/norain-{}.png'),
  ('rain100l', 'test/rain/rain-{:03}.png', 'test/norain/norain-{:03}.png'),
  ('rain100l', 'test/rainy/rain-{:03}.png', 'test/norain-{:03}.png'),
  ('rain100l', 'train/rainy/norain-{}x2.png', 'train/norain-{}.png'),
  ('rain100l', 'train/rain-{}.png', 'train/norain-{}.png'),
  ('rain100h', 'train/rain/norain-{}x2.png', 'train/norain/norain-{}.png'),
  ('rain100h', 'test/input/{}.png', 'test/target/{}.png'),
  ('rain100h', 'test/rain/norain-{}.png', 'test/norain/norain-{}.png'),
  ('rain100l', 'train/rain/rain-{}.png', 'train/norain/rain-{}.png'),
  ('rain200h', 'train/rain/{}.png', 'train/norain/{}.png'),
  ('ddn', 'train/rainy/{}.png', 'train/clean/{}.png'),
  ('rain200l', 'train/rain_L/{}x2.png', 'train/norain/{}.png'),
  ('rain200l', 'test/rain/norain-{}x2.png', 'test/norain/norain-{}.png'),
  ('rain200h', 'train/rain_H/norain-{}x2.png', 'train/norain/norain-{}.png'),
  ('rain200h', 'train/rain/X2/{}x2.png', 'train/norain/{}.png'),
  ('rain200h', 'test/input/{}.png', 'test/target/{}.png'),
  ('spa', 'test/rain/{:03}.png', 'test/gt/{:03}.png'),
  ('spa', 'test/rain/{:03}.png', 'test/gt/{:03}gt.png'),
  ('raindrop', 'train/data/{}_rain.png', 'train/gt/{}_clean.png'),
  ('raindrop', 'test_b/data/{}_rain.jpg', 'test_b/gt/{}_clean.jpg'),
  ('did', 'train/input/{}.jpg', 'train/GT/{}.jpg'),
  ('ddn', 'test/rainy_image/{}_1.jpg', 'test/ground_truth/{}.jpg'),
  ('rain800', 'test/input/{}.png', 'test/target/{}.png'),
]
SIDE_BY_SIDE = [
  ('rain800', 'train/{}.jpg', 'right'),
  ('did', 'train/{}.jpg', 'left'),
  ('did', 'train/Rain_Medium/train2018new/{}.jpg', 'left'),
]


def touch(*paths):
  for path in paths:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def find(name, source):
  return DATASETS[name].find_pairs(source, True)


def test_counts_are_the_published_ones():
  known = {name: s.counts for name, s in DATASETS.items() if s.counts}
  assert known == COUNTS


@pytest.mark.parametrize(('name', 'rainy', 'clean'), TWO_FILES)
def test_finds_pairs_of_files(tmp_path, name, rainy, clean):
  expected = [
    (tmp_path / rainy.format(i), tmp_path / clean.format(i)) for i in (1, 2, 10)
  ]
  touch(*sum(expected, ()))
  split = {'test_a': 'test'}.get(rainy.split('/')[0], rainy.split('/')[0])
  pairs = find(name, tmp_path)[split]
  assert [(pair.rainy, pair.clean) for pair in pairs] == expected
  assert pairs[2].name == expected[2][0].stem


@pytest.mark.parametrize(('name', 'file', 'rainy'), SIDE_BY_SIDE)
def test_finds_halves(tmp_path, name, file, rainy):
  expected = [tmp_path / file.format(i) for i in (1, 2, 10)]
  if 'Rain_Medium' in file:
    expected += [tmp_path / file.replace('Medium', 'Light').format(1)]
  touch(*expected)
  pairs = find(name, tmp_path)['train']
  clean = {'left': 'right', 'right': 'left'}[rainy]
  assert [pair.rainy for pair in pairs] == [Half(p, rainy) for p in expected]
  assert [pair.clean for pair in pairs] == [Half(p, clean) for p in expected]
  assert len({pair.name for pair in pairs}) == len(expected)


def test_test_a_of_raindrop_is_its_test(tmp_path):
  for split in ('test_a', 'test_b'):
    touch(
      *(tmp_path / split / f'{n}.png' for n in ('gt/0_clean', 'data/0_rain'))
    )
  found = find('raindrop', tmp_path)
  assert found['test'][0].rainy == tmp_path / 'test_a/data/0_rain.png'
  assert set(found) == {'test', 'test_b'}


def test_versions_share_a_clean_image(tmp_path):
  rainy = [
    tmp_path / f'train/rainy_image/{i}_{k}.jpg' for i in (1, 2) for k in (1, 14)
  ]
  clean = [tmp_path / f'train/ground_truth/{i}.jpg' for i in (1, 2)]
  touch(*rainy, *clean)
  pairs = find('ddn', tmp_path)['train']
  assert [pair.rainy for pair in pairs] == rainy
  assert [pair.clean for pair in pairs] == [p for p in clean for _ in (1, 14)]
  clean[1].unlink()
  with pytest.raises(ValueError, match=r'clean image: .*2_1\.jpg, .*2_14\.jpg'):
    find('ddn', tmp_path)


def test_rid_is_flat_and_has_no_clean_images(tmp_path):
  touch(tmp_path / '1.jpg', tmp_path / '2.jpg')
  pairs = find('rid', tmp_path)['test']
  assert [tuple(p) for p in pairs] == [
    (n, tmp_path / f'{n}.jpg', None) for n in ('1', '2')
  ]


def test_spa_reads_its_list(tmp_path):
  (tmp_path / 'train').mkdir()
  list_file = tmp_path / 'train/real_world.txt'
  list_file.write_text(
    '/real_world/1/a.png /real_world_gt/1/a.png\nreal_world/2/a.png gt/a.png\n'
  )
  pairs = find('spa', tmp_path)['train']
  assert [tuple(pair) for pair in pairs] == [
    (
      'real_world/1/a',
      tmp_path / 'train/real_world/1/a.png',
      tmp_path / 'train/real_world_gt/1/a.png',
    ),
    (
      'real_world/2/a',
      tmp_path / 'train/real_world/2/a.png',
      tmp_path / 'train/gt/a.png',
    ),
  ]
  list_file.write_text('a.png b.png\nc.png\n')
  with pytest.raises(ValueError, match=r"real_world\.txt, line 2: 'c\.png'"):
    find('spa', tmp_path)
  list_file.write_bytes(b'a\xff.png b.png\n')
  with pytest.raises(ValueError, match=r'real_world\.txt is not UTF-8'):
    find('spa', tmp_path)


def test_shows_what_was_found_and_expected(tmp_path):
  touch(tmp_path / 'train/rain/1.png', tmp_path / 'train/clear/1.png')
  with pytest.raises(
    FileNotFoundError,
    match=r'train has clear/, rain/; .*train/rain has 1\.png; expected, in .*/'
    r'train or RainTrainL: rain/norain-\{i\}x2 with norain/norain-\{i\}; or ',
  ):
    find('rain100l', tmp_path)
  with pytest.raises(FileNotFoundError, match=r'\(both images side by side'):
    find('rain800', tmp_path)
  with pytest.raises(FileNotFoundError, match='absent has nothing .*not a fol'):
    find('rain800', tmp_path / 'absent')


def test_refuses_two_layouts_at_once(tmp_path):
  for name in ('rain_L/1x2', 'norain/1', 'input/1', 'target/1'):
    touch(tmp_path / f'train/{name}.png')
  with pytest.raises(
    ValueError, match=r'several layouts: .*input.*rain_L.*keep'
  ):
    find('rain200l', tmp_path)


def test_names_a_file_that_fits_no_name(tmp_path):
  for name in ('rain/1x2.png', 'norain/1.png', 'norain/Thumbs.db'):
    touch(tmp_path / f'train/{name}')
  with pytest.raises(ValueError, match=r'1 files fit no name .*Thumbs\.db'):
    find('rain200l', tmp_path)


def test_splits_in_other_case_where_it_does_not_count(tmp_path, monkeypatch):
  names = 'train/rainy/1.png', 'train/clean/1.png', 'test/rain/1.png'
  touch(*(tmp_path / n for n in (*names, 'test/gt/1.png')))
  listed = [tmp_path / 'Test', tmp_path / 'Train']
  iterdir = pathlib.Path.iterdir
  monkeypatch.setattr(
    pathlib.Path,
    'iterdir',
    lambda path: iter(listed) if path == tmp_path else iterdir(path),
  )
  # The names are those that the digests of older copies have.
  found = DATASETS['pairs'].splits['train'].places(tmp_path)
  assert found == [tmp_path / 'train']
  assert [p.rainy for p in find('spa', tmp_path)['test']] == [
    tmp_path / 'test/rain/1.png'
  ]


def test_a_pattern_matches_whole_names():
  expression = layouts._expression('a.b-{i}_{k}')
  assert expression.fullmatch('a.b-12_3').groups() == ('12', '3')
  assert not expression.fullmatch('axb-12_3')
  assert not re.fullmatch(expression, 'a.b-12_3x2')
