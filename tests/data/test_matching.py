import os

import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.data import images, matching
from mixdtp_jax.data import pairs as pairs_lib
from tests.helpers.image_files import save

SIDES = ('rainy', 'clean')


@pytest.mark.parametrize('names', matching.FOLDER_NAMES)
def test_opens_each_layout(tmp_path, names):
  rainy = save(tmp_path / names[0] / 'b.png', seed=1)
  clean = save(tmp_path / names[1] / 'b.png', seed=2)
  save(tmp_path / names[0] / 'a.jpg', (20, 30))
  save(tmp_path / names[1] / 'a.png', (20, 30))
  (tmp_path / names[0] / '.DS_Store').touch()
  pairs = matching.open_folder(tmp_path)
  assert len(pairs) == 2
  assert [pairs.shape(i) for i in range(2)] == [(30, 20), (36, 40)]
  assert pairs[0]['name'] == 'a'
  np.testing.assert_array_equal(pairs[1]['rainy'], rainy)
  np.testing.assert_array_equal(pairs[1]['clean'], clean)


def test_several_rains_of_one_scene(tmp_path):
  names = 'im_2_s80_a04', 'im_2_s80_a05', 'im_10-light', 'im_2_1_s90'
  for name in names:
    save(tmp_path / 'in' / f'{name}.png')
  for name in ('im_2', 'im_10', 'im_2_1'):
    save(tmp_path / 'gt' / f'{name}.png')
  found = {p.name: p.clean.stem for p in matching.find_pairs(tmp_path)}
  assert found == dict(
    zip(names, ('im_2', 'im_2', 'im_10', 'im_2_1'), strict=True)
  )
  # An equal name says that the others are no versions.
  save(tmp_path / 'in/im_2.png')
  with pytest.raises(ValueError, match='without a clean image: .*im_2_s80_a04'):
    matching.find_pairs(tmp_path)
  (tmp_path / 'in/im_2.png').unlink()
  save(tmp_path / 'in/im_3_s80.png')
  with pytest.raises(ValueError, match=r'clean image: .*im_3_s80\.png \('):
    matching.find_pairs(tmp_path)


def test_a_name_that_would_be_too_long_in_utf_8_is_refused(tmp_path):
  path = tmp_path / os.fsdecode(b'\xa0' * 60 + b'.png')
  with pytest.raises(ValueError, match='takes 360 bytes.*a shorter name'):
    matching.pair_name(path)
  assert matching.pair_name(tmp_path / os.fsdecode(b'\xa0.png')) == r'\udca0'


def test_names_images_without_partner(tmp_path):
  for name in ('rainy/1.png', 'rainy/2.png', 'clean/1.png', 'clean/3.png'):
    save(tmp_path / name)
  with pytest.raises(ValueError, match=r'clean image: .*2\.png.*rainy.*3\.png'):
    matching.open_folder(tmp_path)


def test_shows_what_was_found_and_expected(tmp_path):
  save(tmp_path / 'noisy' / '1.png')
  with pytest.raises(FileNotFoundError, match=r'has noisy/; expected .*rainy/'):
    matching.open_folder(tmp_path)
  with pytest.raises(FileNotFoundError, match='not a folder'):
    matching.open_folder(tmp_path / 'absent')


def test_refuses_what_is_ambiguous_or_empty(tmp_path):
  for folder in ('rainy', 'clean'):
    (tmp_path / folder).mkdir()
  with pytest.raises(ValueError, match='no image pairs'):
    matching.open_folder(tmp_path)
  for name in ('rainy/1.png', 'rainy/1.jpg', 'clean/1.png'):
    save(tmp_path / name)
  with pytest.raises(ValueError, match=r'1\.jpg and 1\.png have one stem'):
    matching.open_folder(tmp_path)
  for name in ('input/1.png', 'target/1.png'):
    save(tmp_path / name)
  with pytest.raises(ValueError, match='keep exactly one'):
    matching.open_folder(tmp_path)


def test_refuses_unequal_sizes(tmp_path):
  save(tmp_path / 'rainy' / '1.png', (12, 10))
  save(tmp_path / 'clean' / '1.png', (12, 11))
  with pytest.raises(ValueError, match='1: .*12x10.*12x11'):
    matching.open_folder(tmp_path)


@pytest.mark.parametrize('mode', ['L', 'RGBA', '1'])
def test_refuses_other_modes(tmp_path, mode):
  save(tmp_path / 'x.png', mode=mode)
  with pytest.raises(ValueError, match=rf'x\.png is not RGB.*{mode}.*convert'):
    images.read_image(tmp_path / 'x.png')


def test_refuses_a_palette_with_transparency(tmp_path):
  Image.new('P', (4, 4)).save(tmp_path / 'x.png', transparency=0)
  with pytest.raises(ValueError, match='mode is P with transparency'):
    images.read_image(tmp_path / 'x.png')


def test_reads_a_palette_as_rgb(tmp_path):
  expected = save(tmp_path / 'x.png', mode='P')
  np.testing.assert_array_equal(images.read_image(tmp_path / 'x.png'), expected)


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_names_a_file_that_is_cut_short(tmp_path, suffix):
  path = tmp_path / f'x.{suffix}'
  save(path, (64, 64))
  path.write_bytes(path.read_bytes()[:-200])
  assert images.image_shape(path) == (64, 64)  # the header is whole
  with pytest.raises(ValueError, match=rf'x\.{suffix} cannot be decoded'):
    images.read_image(path)


def test_names_a_file_with_a_damaged_chunk(tmp_path):
  path = tmp_path / 'x.png'
  save(path, (64, 64))
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0xFF
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r'x\.png cannot be decoded'):
    images.read_image(path)


def test_names_a_file_that_is_no_image(tmp_path):
  (tmp_path / 'x.png').write_text('text')
  with pytest.raises(ValueError, match=r'x\.png cannot be decoded'):
    images.image_shape(tmp_path / 'x.png')


@pytest.mark.parametrize(
  ('multiple', 'shapes'),
  [(1, [(30, 45), (33, 32)]), (16, [(16, 32), (32, 32)])],
)
def test_pairs_are_cut_from_the_top_left(tmp_path, multiple, shapes):
  whole = [
    [save(tmp_path / side / f'{name}.png', size, seed=seed) for side in SIDES]
    for seed, (name, size) in enumerate((('a', (45, 30)), ('b', (32, 33))))
  ]
  pairs = pairs_lib.cut_to_multiples(matching.open_folder(tmp_path), multiple)
  assert len(pairs) == 2
  assert [pairs.shape(i) for i in range(2)] == shapes
  for i, (name, (height, width)) in enumerate(zip('ab', shapes, strict=True)):
    assert pairs[i]['name'] == name
    for side, image in zip(SIDES, whole[i], strict=True):
      np.testing.assert_array_equal(pairs[i][side], image[:height, :width])


def test_a_pair_too_small_to_be_cut_is_named(tmp_path):
  for side in SIDES:
    save(tmp_path / side / 'large.png', (40, 32))
    save(tmp_path / side / 'little.png', (40, 31))
  pairs = matching.open_folder(tmp_path)
  with pytest.raises(ValueError, match='^little has 40x31 pixels, .* of 32'):
    pairs_lib.cut_to_multiples(pairs, 32)
