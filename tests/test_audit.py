"""The audit finds what is planted, and nothing else."""

import dataclasses
import io
import json
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
import scipy.fft
from PIL import Image

from mixdtp_jax import __main__
from mixdtp_jax.data import datasets, folders, rain
from mixdtp_jax.data.audit import command, findings, pairs, scenes, sets
from mixdtp_jax.data.audit.findings import PairId
from mixdtp_jax.data.folders import PairFiles

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


def photograph(name):
  file = resources.files('skimage') / 'data' / name
  return np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert('RGB'))


def cut(image, side=120):
  """Crops that do not overlap."""
  rows, columns = image.shape[0] // side, image.shape[1] // side
  return [
    image[y * side : (y + 1) * side, x * side : (x + 1) * side]
    for y in range(rows)
    for x in range(columns)
  ]


def encode(image, **options):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, **{'format': 'PNG', **options})
  return buffer.getvalue()


def jpeg(image, quality):
  return encode(image, format='JPEG', quality=quality)


def draw(image, seed):
  rainy = rain.add_rain(image.astype(np.float32) / 255, (seed, 0))
  return np.round(rainy.numpy() * 255).astype(np.uint8)


def resize(image, factor):
  size = [round(side * factor) for side in image.shape[1::-1]]
  return np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC))


def luma(image):
  return np.asarray(Image.fromarray(image).convert('L'))


def pair(name, rainy, clean):
  return PairFiles(name, *(encode(image) for image in (rainy, clean)))


def audit(published=None, **splits):
  return sets.audit(splits, published or {})


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


def test_real_photographs(real_data):
  splits = datasets.Rain100L(source='', data_dir='').find_pairs(
    real_data / 'rain100l'
  )
  copies = [
    PairFiles(p.name, p.rainy, jpeg(folders.read_image(p.clean), 50 + k))
    for k, p in enumerate(splits['train'][::20])
  ]
  # The rainy side alone of the other ten.
  copies += [
    PairFiles(p.name, p.rainy, p.rainy) for p in splits['train'][10::20]
  ]
  result = audit(rain100l=splits, other={'test': copies})
  kinds = [finding.kind for finding in result.findings]
  # Nine scenes are twice in the published test set; we looked at them.
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
  assert pairs.find_shift(luma(rainy), luma(clean)) == (shift, True)
  train = [PairFiles('a', jpeg(rainy, 75), jpeg(clean, 75))]
  result = audit(set={'train': train})
  assert found(result) == {('misaligned', ('set/train/a',), ('set/train/a',))}
  assert f'{down} pixels down and {right} right' in result.findings[0].note


def test_pairs_that_fit_and_pairs_that_are_swapped(coffee, rainy_coffee):
  clean = [coffee, photograph('chelsea.png'), photograph('astronaut.png')]
  rainy = [rainy_coffee, *(draw(image, 5) for image in clean[1:])]
  for a, b in zip(rainy, clean, strict=True):
    assert pairs.inspect(pair('a', a, b)).problems == {}
    # Rain that comes with a darker sky is rain all the same.
    dim = (a * 0.7).astype(np.uint8)
    assert pairs.inspect(pair('a', dim, b)).problems == {}
    assert set(pairs.inspect(pair('a', b, a)).problems) == {'swapped'}


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
  heavy = rain.Rain(
    tuple(
      dataclasses.replace(
        layer, streaks=30 * layer.streaks, brightness=(0.6, 1)
      )
      for layer in rain.LIGHT.layers
    )
  )
  flood = rain.add_rain(coffee.astype(np.float32) / 255, (3, 0), heavy)
  flood = np.round(flood.numpy() * 255).astype(np.uint8)
  flooded = pair('flood', flood, coffee)
  assert not scenes.same_scene(*pairs.inspect(flooded).spectra)
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


@pytest.fixture
def audited():
  first, second = PairId('set', 'train', 'a'), PairId('set', 'test', 'a')
  return findings.Audit(
    {'set': {'train': 2, 'test': 1}},
    (
      findings.Finding('leak', (first, second), excluded=(first,)),
      *[findings.Finding('size', (second,), 'x')] * 7,
    ),
  )


def test_json_and_table(audited, tmp_path):
  findings.write_audit(audited, tmp_path / 'new' / 'audit.json')
  assert findings.read_audit(tmp_path / 'new' / 'audit.json') == audited
  lines = findings.format_audit(audited).splitlines()
  assert [line.split() for line in lines[1:4]] == [
    ['set', 'train', '2', 'leak', '1', '1', '1'],
    ['set', 'test', '1', 'size', '7', '1', '0'],
    ['leak', '1', '1', '0'],
  ]
  assert lines.count('  set/test/a: x') == 5
  assert '  and 2 more' in lines
  (tmp_path / 'bad.json').write_text('{"sizes": {}}')
  with pytest.raises(ValueError, match=r'bad\.json is no audit'):
    findings.read_audit(tmp_path / 'bad.json')


def test_leaves_out_what_is_excluded(audited):
  a, b = (PairFiles(name, b'', b'') for name in 'ab')
  splits = {'train': [a, b], 'test': [a]}
  assert findings.leave_out('set', splits, audited) == {
    'train': [b],
    'test': [a],
  }
  with pytest.raises(ValueError, match='audit it again'):
    findings.leave_out('set', {'train': [a], 'test': [a]}, audited)
  with pytest.raises(ValueError, match='audit is of other sets'):
    findings.leave_out('other', splits, audited)
  everything = dataclasses.replace(audited, sizes={'set': {'train': 1}})
  with pytest.raises(ValueError, match='every pair of set train'):
    findings.leave_out('set', {'train': [a]}, everything)


@pytest.fixture
def leaking(tmp_path, coffee, rainy_coffee):
  """A folder of pairs: train 1 and 2, test 1, and 1 is the same in both."""
  chelsea = photograph('chelsea.png')
  for name, split, *images in (
    ('1', 'train', rainy_coffee, coffee),
    ('2', 'train', draw(chelsea, 1), chelsea),
    ('1', 'test', draw(coffee, 7), coffee),
  ):
    for side, image in zip(('rainy', 'clean'), images, strict=True):
      path = tmp_path / 'source' / split / side / f'{name}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encode(image))
  return tmp_path / 'source'


def prepare(source, data_dir, exclude=''):
  return datasets.prepare(
    'pairs', source=str(source), data_dir=str(data_dir), exclude=str(exclude)
  )


def test_prepares_without_what_is_excluded(leaking, tmp_path):
  output, data = tmp_path / 'audit.json', tmp_path / 'data'
  command.run([f'pairs={leaking}'], str(output))
  builder = prepare(leaking, data, output)
  names = {
    split: [datasets.PreparedPairs(builder, split)[0]['name']]
    for split in ('train', 'test')
  }
  assert names == {'train': ['2'], 'test': ['1']}
  assert builder.info.splits['train'].num_examples == 1
  # The copy is taken as it is, but not for one of another audit.
  for exclude in ('', output):
    assert prepare(leaking, data, exclude).data_path == builder.data_path
  output.write_text(output.read_text().replace('leak', 'size'))
  with pytest.raises(ValueError, match='was prepared without what .* excludes'):
    prepare(leaking, data, output)
  prepare(leaking, tmp_path / 'whole')
  with pytest.raises(ValueError, match='was prepared without what .* excludes'):
    prepare(leaking, tmp_path / 'whole', output)


def run(*arguments):
  arguments = ('-m', 'mixdtp_jax', 'prepare', *map(str, arguments))
  return subprocess.run(
    (sys.executable, *arguments), capture_output=True, text=True
  )


def test_command(leaking, tmp_path):
  output = tmp_path / 'audit.json'
  result = run(
    '--audit', f'pairs={leaking}', 'rain100l=/nowhere', '--json', output
  )
  assert result.returncode == 0, result.stderr
  assert 'audited 3 of 3' in result.stderr
  assert 'leak: a scene in training and in a test split' in result.stdout
  content = json.loads(output.read_text())
  assert content['sizes'] == {
    'pairs': {'train': 2, 'test': 1},
    'rain100l': {},
  }
  assert [f['kind'] for f in content['findings']] == ['layout', 'leak']
  result = run(
    'pairs', '--source', leaking, '--data_dir', tmp_path, '--exclude', output
  )
  assert 'pairs: train 1, test 1, in' in result.stdout, result.stderr


@pytest.mark.parametrize(
  'arguments',
  [[], ['pairs'], ['pairs', '--data_dir', 'x', '--audit', 'pairs=x']],
)
def test_prepare_or_audit(arguments, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['mixdtp_jax', 'prepare', *arguments])
  with pytest.raises(SystemExit):
    __main__.main()
  assert 'give NAME and --data_dir, or --audit alone' in capsys.readouterr().err


@pytest.mark.parametrize(
  'entries, message',
  [
    (['rain100l'], "'rain100l' is not NAME=FOLDER"),
    (['rain1000l=x'], "'rain1000l=x' is not NAME=FOLDER with a name of pairs"),
    (['pairs=x', 'pairs=y'], 'pairs is given twice'),
  ],
)
def test_command_refuses(entries, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    command.run(entries, str(tmp_path / 'audit.json'))
  assert not list(tmp_path.iterdir())
