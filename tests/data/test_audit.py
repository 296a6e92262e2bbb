"""The audit finds what is planted, and nothing else."""

import dataclasses

import numpy as np
import pytest
import scipy.fft

from mixdtp_jax.data import images as images_lib
from mixdtp_jax.data.audit import inspection, relations, scenes
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.data.findings import PairId
from mixdtp_jax.data.pairs import PairFiles
from mixdtp_jax.data.rain.draw import add_rain
from mixdtp_jax.recipe.rain_ranges import PRESETS
from tests.helpers.rainy_photographs import (
  draw,
  encode,
  jpeg,
  luma,
  pair,
  photograph,
  resize,
)

# No two of them overlap, nor is one the other eye's view of another.
PHOTOGRAPHS = (
  'astronaut.png',
  'chelsea.png',
  'coffee.png',
  'motorcycle_left.png',
  'rocket.jpg',
  'camera.png',
  'ihc.png',
  'hubble_deep_field.jpg',
  'coins.png',
  'moon.png',
  'grass.png',
  'gravel.png',
)


def cut(image, side=120):
  """Crops that do not overlap."""
  rows, columns = image.shape[0] // side, image.shape[1] // side
  return [
    image[y * side : (y + 1) * side, x * side : (x + 1) * side]
    for y in range(rows)
    for x in range(columns)
  ]


def audit(published=None, **splits):
  return relations.audit(splits, published or {})


def found(result):
  return {
    (f.kind, tuple(map(str, f.pairs)), tuple(map(str, f.excluded)))
    for f in result.findings
  }


@pytest.fixture(scope='module')
def coffee():
  return photograph('coffee.png')


@pytest.fixture(scope='module')
def rainy_coffee(coffee):
  return draw(coffee, 1)


# The same of all 200: which is what rain, files and sizes do to a photograph.
COPIES = {
  'rainy': lambda image, k: encode(draw(image, k)),
  'rainy and re-encoded': lambda image, k: jpeg(draw(image, k), 60),
  're-encoded': lambda image, k: jpeg(image, 50 + 2 * k),
  'smaller': lambda image, k: encode(resize(image, 0.9)),
  'larger': lambda image, k: jpeg(resize(image, 1.1), 80),
}


@pytest.mark.slow
def test_finds_20_of_20_leaks_and_no_other_among_200_photographs():
  crops = [crop for name in PHOTOGRAPHS for crop in cut(photograph(name))]
  crops = crops[:200]
  assert len(crops) == 200
  train = [pair(f'{i}', crop, crop) for i, crop in enumerate(crops)]
  test = []
  for k, number in enumerate(range(0, 200, 10)):
    # One file as both sides: there is no untouched image to match instead.
    copy = list(COPIES.values())[k % len(COPIES)](crops[number], k)
    test.append(PairFiles(f'{number}', copy, copy))
  assert found(audit(set={'train': train, 'test': test})) == {
    ('leak', (f'set/train/{i}', f'set/test/{i}'), (f'set/train/{i}',))
    for i in range(0, 200, 10)
  }


@pytest.mark.slow
def test_real_photographs(real_data):
  splits = registry.DATASETS['rain100l'].find_pairs(
    real_data / 'rain100l', False
  )
  copies = [
    PairFiles(p.name, p.rainy, jpeg(images_lib.read_image(p.clean), 50 + k))
    for k, p in enumerate(splits['train'][::20])
  ]
  # The rainy side alone of the other ten.
  copies += [
    PairFiles(p.name, p.rainy, p.rainy) for p in splits['train'][10::20]
  ]
  result = audit(rain100l=splits, other={'test': copies})
  kinds = [finding.kind for finding in result.findings]
  # Nine scenes are twice in the published test set, under two rains.
  assert kinds == ['repeated'] * 9 + ['leak'] * 20
  assert {finding.excluded for finding in result.findings[9:]} == {
    (PairId('rain100l', 'train', copy.name),) for copy in copies
  }


def test_spectrum_is_of_the_cosine_transform():
  image = np.zeros((32, 64), np.uint8)
  image[:, 20:] = 90
  image[:9] += 40
  # Whole cells: of two columns of pixels each, all samples are equal.
  low = scipy.fft.dctn(image[:, ::2].astype(float), norm='ortho')
  radius = np.hypot(*np.indices((32, 32)))
  coarse = (low * radius**1.5)[:10, :10].ravel()
  fine = (low * radius)[(radius >= 6) & (radius < 16)]
  expected = [band / np.linalg.norm(band) for band in (coarse, fine)]
  np.testing.assert_allclose(
    scenes.spectrum(image), np.concatenate(expected), atol=1e-6
  )


def test_flat_images_are_like_nothing():
  random = np.random.default_rng(0)
  noise = 7 + random.integers(0, 2, (2, 90, 80)).astype(np.uint8)
  spectra = np.stack([scenes.spectrum(image) for image in noise])
  assert not spectra.any()
  assert len(set(scenes.group(spectra))) == 2
  black = np.zeros((90, 80, 3), np.uint8)
  pixel = black.copy()
  pixel[0, 0] = 1
  train, test = [pair('a', black, black)], [pair('b', pixel, pixel)]
  assert not audit(set={'train': train, 'test': test}).findings


def test_groups_as_comparing_one_by_one_does(monkeypatch):
  monkeypatch.setattr(scenes, '_ROWS', 7)
  random = np.random.default_rng(0)
  base = [random.uniform(0, 255, (32, 32)) for _ in range(10)]
  images = [
    np.clip(base[i] + random.normal(scale=25, size=(32, 32)), 0, 255)
    for i in random.integers(0, 10, 40)
  ]
  spectra = np.stack([scenes.spectrum(i.astype(np.uint8)) for i in images])
  labels = scenes.group(spectra)
  coarse, fine = (part @ part.T for part in np.split(spectra, [100], axis=1))
  same = (coarse > 0.73) & (fine > 0.7)
  assert 40 < same.sum() < 400
  np.testing.assert_array_equal(labels[:, None] == labels, same)
  assert len(scenes.group(spectra[:0])) == 0


@pytest.mark.parametrize('shift', [(0, 1), (-3, 2), (25, -40)])
def test_shift(coffee, rainy_coffee, shift):
  down, right = shift
  height, width = 300, 400
  rainy = rainy_coffee[50 : 50 + height, 60 : 60 + width]
  top, left = 50 - down, 60 - right
  clean = coffee[top : top + height, left : left + width]
  assert inspection.find_shift(luma(rainy), luma(clean)) == (shift, True)
  train = [PairFiles('a', jpeg(rainy, 75), jpeg(clean, 75))]
  result = audit(set={'train': train})
  assert found(result) == {('misaligned', ('set/train/a',), ('set/train/a',))}
  assert f'{down} pixels down and {right} right' in result.findings[0].note


def test_pairs_that_fit_and_pairs_that_are_swapped(coffee, rainy_coffee):
  clean = [coffee, photograph('chelsea.png'), photograph('astronaut.png')]
  rainy = [rainy_coffee, *(draw(image, 5) for image in clean[1:])]
  for a, b in zip(rainy, clean, strict=True):
    assert inspection.inspect(pair('a', a, b)).problems == {}
    # Rain that comes with a darker sky is rain all the same.
    dim = (a * 0.7).astype(np.uint8)
    assert inspection.inspect(pair('a', dim, b)).problems == {}
    assert set(inspection.inspect(pair('a', b, a)).problems) == {'swapped'}


def test_files_that_do_not_fit(coffee, rainy_coffee):
  good = pair('good', rainy_coffee, coffee)
  gray = encode(luma(coffee))
  cat = encode(photograph('chelsea.png')[:, :400])
  train = [
    good,
    good._replace(name='cut', clean=good.clean[:-5000]),
    good._replace(name='gray', rainy=gray),
    good._replace(name='text', rainy=b'no image'),
    PairFiles('other', encode(photograph('rocket.jpg')[:300, :400]), cat),
    PairFiles('size', cat, encode(photograph('chelsea.png')[:, 1:400])),
  ]
  result = audit(
    published={'set': {'train': (6, 7), 'test': (3,), 'more': (1, 2)}},
    set={'train': train, 'test': [train[1]]},
  )
  excluded = {
    f'set/train/{name}': kind
    for kind, names in {
      'unreadable': ('cut', 'gray', 'text'),
      'unlike': ('other',),
      'size': ('size',),
    }.items()
    for name in names
  }
  assert found(result) == {
    *((kind, (name,), (name,)) for name, kind in excluded.items()),
    ('unreadable', ('set/test/cut',), ()),
    ('count', ('set/test',), ()),
    ('count', ('set/more',), ()),
    # The two with the cat are one scene.
    ('repeated', ('set/train/other', 'set/train/size'), ()),
  }
  notes = [finding.note for finding in result.findings]
  assert notes[:2] == ['1 pairs; published: 3', '0 pairs; published: 1 or 2']
  assert 'cut (clean) cannot be decoded' in notes[2]
  assert 'gray (rainy) is not RGB' in notes[3]


def test_duplicates_and_several_rains(coffee, rainy_coffee):
  chelsea = photograph('chelsea.png')
  other_rain = pair('other', draw(coffee, 2), coffee)
  train = [
    pair('first', rainy_coffee, coffee),
    pair('alone', draw(chelsea, 1), chelsea),
    other_rain,
    PairFiles('again', encode(rainy_coffee, compress_level=1), encode(coffee)),
  ]
  near = PairFiles('near', jpeg(rainy_coffee, 70), jpeg(coffee, 70))
  repeated = ('set/train/first', 'set/train/other', 'set/train/again')
  result = audit(set={'train': train})
  assert found(result) == {
    (
      'duplicate',
      ('set/train/first', 'set/train/again'),
      ('set/train/again',),
    ),
    ('repeated', repeated, ()),
  }
  assert [f.note for f in result.findings] == ['exact', '2 rains']
  result = audit(set={'train': [train[0], train[1], near]})
  assert [(f.kind, f.note) for f in result.findings] == [('duplicate', 'near')]
  # In two training sets, or two test sets, a scene leaks nowhere.
  for split in ('train', 'test'):
    result = audit(a={split: [train[0]]}, b={split: [near]})
    assert found(result) == {
      ('shared', (f'a/{split}/first', f'b/{split}/near'), ())
    }


def test_sets_with_one_side(coffee, rainy_coffee):
  rainy = pair('a', rainy_coffee, coffee)._replace(clean=None)
  clean = pair('b', rainy_coffee, coffee)._replace(rainy=None)
  result = audit(real={'test': [rainy]}, own={'train': [clean, clean]})
  names = ('own/train/b', 'own/train/b')
  assert found(result) == {
    ('leak', ('real/test/a', *names), names),
    ('duplicate', names, names[:1]),
  }


def test_leaks_across_sets_and_through_heavy_rain(coffee):
  heavy = dataclasses.replace(
    PRESETS['light'], streaks=(1500.0, 1500.0), brightness=(0.6, 1.0)
  )
  flood = add_rain(coffee.astype(np.float32) / 255, (3, 0), heavy)
  flood = np.round(flood.numpy() * 255).astype(np.uint8)
  flooded = pair('flood', flood, coffee)
  assert not scenes.same_scene(*inspection.inspect(flooded).spectra)
  test = PairFiles('coffee', jpeg(coffee, 60), jpeg(coffee, 60))
  # The clean image tells; and with wrong partners the rainy one does.
  swapped = flooded._replace(rainy=flooded.clean, clean=flooded.rainy)
  for train in (flooded, swapped):
    result = audit(a={'train': [train]}, b={'test': [test]})
    assert (
      'leak',
      ('a/train/flood', 'b/test/coffee'),
      ('a/train/flood',),
    ) in found(result)
