"""Tables, CSV, JSON and images, read back by other readers."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.data import images as image_files
from mixdtp_jax.evaluation import images, network, results
from mixdtp_jax.evaluation.metrics import Score
from mixdtp_jax.evaluation.score import Row
from mixdtp_jax.restoration import sheets

_ROWS = [
  Row(
    'a/1',
    {'rgb': Score(20.0, 0.5), 'y': Score(22.0, 0.6)},
    {'rgb': Score(30.0, 0.75), 'y': Score(32.5, 0.8)},
  ),
  Row(
    'a/2',
    {'rgb': Score(21.0, 0.7), 'y': Score(math.nan, 0.8)},
    {'rgb': Score(33.125, 1.0), 'y': Score(math.inf, 1.0)},
  ),
]


def test_table_shows_means_and_gains():
  lines = str(results.score_table(_ROWS[:1] * 2)).splitlines()
  assert lines[1].split() == ['protocol', 'input', 'restored', 'gain']
  rgb = next(line for line in lines if line.startswith('rgb'))
  want = 'rgb 20.0000 / 0.5000 30.0000 / 0.7500 +10.0000 / +0.2500'
  assert rgb.split() == want.split()
  assert 'mean over 2 images' in lines[-1]
  assert max(map(len, lines)) <= 80
  means = str(results.score_table(_ROWS))
  assert '20.5000 / 0.6000' in means and '31.5625 / 0.8750' in means


def test_csv_holds_every_number(tmp_path):
  path = tmp_path / 'new' / 'results.csv'
  results.write_csv(_ROWS, path)
  with open(path, newline='') as file:
    lines = list(csv.DictReader(file))
  assert [line['name'] for line in lines] == ['a/1', 'a/2']
  for line, row in zip(lines, _ROWS, strict=True):
    assert len(line) == 1 + 2 * 2 * 2
    for which in ('input', 'restored'):
      for protocol, score in getattr(row, which).items():
        for field, value in score._asdict().items():
          got = float(line[f'{protocol}_{which}_{field}'])
          np.testing.assert_equal(got, value)


def test_json_is_valid_and_holds_every_number(tmp_path):
  path = tmp_path / 'results.json'
  results.write_json(_ROWS, path, {'weights': 'w.pth', 'list': (1, math.inf)})

  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  content = json.loads(path.read_text(), parse_constant=refuse)
  assert content['context'] == {'weights': 'w.pth', 'list': [1, 'inf']}
  assert [image['name'] for image in content['images']] == ['a/1', 'a/2']
  second = content['images'][1]
  assert second['restored']['rgb'] == {'psnr': 33.125, 'ssim': 1.0}
  assert second['restored']['y']['psnr'] == 'inf'
  assert float(second['restored']['y']['psnr']) == math.inf
  assert second['input']['y']['psnr'] == 'nan'
  assert content['mean']['restored']['rgb']['psnr'] == 31.5625


def test_png_rounds_and_clamps(tmp_path):
  levels = np.arange(256).repeat(3).reshape(16, 16, 3)
  path = tmp_path / 'image.png'
  image_files.write_png(np.float32(levels / 255), path)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), levels)
  image_files.write_png(np.float32((levels + 0.49) / 255), path)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), levels)
  image_files.write_png(np.float32((levels + 0.51) / 255), path)
  want = np.minimum(levels + 1, 255)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), want)
  image_files.write_png(np.float32(levels / 255) * 3 - 1, path)
  assert np.asarray(Image.open(path)).min() == 0
  image_files.write_png(np.uint8(levels), path)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), levels)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
  path = tmp_path / 'results.json'
  results.write_json(_ROWS, path, {})
  before = path.read_bytes()
  with pytest.raises(TypeError):
    results.write_json(_ROWS, path, {'unwritable': object()})
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


def test_png_refuses_what_is_no_image(tmp_path):
  for image, message in (
    (np.zeros((4, 4), np.float32), 'shape'),
    (np.full((4, 4, 3), np.nan, np.float32), 'not finite'),
  ):
    with pytest.raises(ValueError, match=message):
      image_files.write_png(image, tmp_path / 'image.png')
  assert not list(tmp_path.iterdir())


def test_image_paths_keep_folders_and_stay_inside(tmp_path):
  assert images.image_path(tmp_path, 'a/b') == tmp_path / 'a' / 'b.png'
  assert images.image_path(tmp_path, 'x.jpg') == tmp_path / 'x.jpg.png'
  for name in ('../x', 'a/../../x', '/etc/x', '', '.', '..'):
    with pytest.raises(ValueError, match='inside the output folder'):
      images.image_path(tmp_path, name)


@pytest.mark.parametrize('sides', [(200, 160), (20, 12)])
def test_side_by_side_shows_images_and_labels(sides):
  red = np.zeros((*sides, 3), np.float32)
  red[..., 0] = 1
  blue = np.zeros((sides[0] // 2, sides[1], 3), np.uint8)
  blue[..., 2] = 255
  picture = sheets.side_by_side([('rainy', red), ('restored', blue)])
  assert picture.dtype == np.uint8 and picture.shape[0] > sides[0]
  strip = picture.shape[0] - sides[0]
  assert (picture == (255, 0, 0)).all(-1).sum() == sides[0] * sides[1]
  assert (picture == (0, 0, 255)).all(-1).sum() == sides[0] // 2 * sides[1]
  # Both labels are dark on the white strip, one in each half.
  dark = (picture[:strip] < 100).all(-1)
  middle = picture.shape[1] // 2
  assert dark[:, :middle].sum() > 10 and dark[:, middle:].sum() > 10
  assert not dark[-1].any() and not dark[:, -1].any()


def test_side_by_side_needs_images():
  with pytest.raises(ValueError, match='no images'):
    sheets.side_by_side([])


def _pairs(count):
  rng = np.random.default_rng(0)
  return [
    {
      'name': f'set/{i}',
      'rainy': rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8),
      'clean': rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8),
    }
    for i in range(count)
  ]


def test_the_first_images_are_shown_and_all_saved(tmp_path):
  pairs = _pairs(5)
  first = images.FirstImages(pairs, tmp_path)
  height = 0
  for i, pair in enumerate(pairs):
    first.add([pair['name']], np.float32(pair['rainy'])[None] / 255)
    if i < 3:  # comparison.png shows three
      assert first.image.shape[0] > height + 20
      height = first.image.shape[0]
  assert first.image.shape[0] == height
  assert first.image.dtype == np.uint8
  for pair in pairs:
    with Image.open(tmp_path / 'images' / f'{pair["name"]}.png') as image:
      np.testing.assert_array_equal(np.asarray(image), pair['rainy'])


def test_without_a_folder_no_image_is_written(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  first = images.FirstImages(_pairs(1), None)
  first.add(['set/0'], np.full((1, 20, 30, 3), np.nan, np.float32))
  assert first.image.shape[0] > 20
  assert not list(tmp_path.iterdir())


def test_report_returns_what_it_wrote(tmp_path):
  image, context = np.zeros((4, 5, 3), np.uint8), {'step': 3}
  paths = network.report(
    _ROWS, image, tmp_path / 'out', dataset='', crop_multiple=1, context=context
  )
  assert [path.name for path in paths] == [
    'results.csv', 'results.json', 'comparison.png',
  ]  # fmt: skip
  assert sorted((tmp_path / 'out').iterdir()) == sorted(paths)
  content = json.loads(paths[1].read_text())
  assert content['context'] == context
  assert content['published'] == {}
